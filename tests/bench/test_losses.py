import pytest
import torch

from drrepro.bench import losses


def test_the_peers_compute_the_same_losses():
    logits, labels = losses.problem(1_000, 5)
    dr = [losses.PEERS[name](logits, labels) for name in ("DRLoss", "naive DR")]
    focal = [losses.PEERS[name](logits, labels) for name in ("FocalLoss", "torchvision focal")]
    for values in (dr, focal):
        for value in values:
            assert value.item() == pytest.approx(values[0].item(), rel=1e-4)


def test_a_bench_has_a_row_for_each_and_restores_the_threads():
    before = torch.get_num_threads()
    calls = []
    frame = losses.bench([(1_000, 4)], [1], 1, False, lambda done, total: calls.append((done, total)))
    assert torch.get_num_threads() == before
    assert frame["loss"].tolist() == list(losses.PEERS)
    assert calls[-1] == (len(losses.PEERS),) * 2
    assert (frame["total_ms"] > 0).all()
    assert frame.loc[0, "against DRLoss"] == 1
    assert len(losses.draw(frame).axes) == 1


def test_memory_counts_what_is_held_at_once():
    logits = torch.randn(1, 50_000, 8, requires_grad=True)
    size = logits.numel() * logits.element_size()
    labels = torch.zeros(1, 50_000, dtype=torch.int64)
    assert losses.peak_memory(losses.plain_copy, logits, labels) == pytest.approx(size, rel=0.01)
    assert losses.peak_memory(losses.PEERS["naive DR"], logits, labels) > 5 * size
