import json
import os
import signal
from itertools import pairwise

import pytest
import torch

from drrepro.bench.step import make_batch
from drrepro.config import compose, run_id
from drrepro.errors import RunError, UsageError
from drrepro.experiments.run import run
from drrepro.losses import DRLoss
from drrepro.models.retinanet import build_detector
from drrepro.progress import silent
from drrepro.training.checkpoint import load_checkpoint
from drrepro.training.loop import build_learner
from drrepro.training.step import NotFiniteError, with_targets
from tests.conftest import TINY


def weights(directory):
    return load_checkpoint(directory)["model"]


class StopError(Exception):
    pass


def stop_at(step):
    def report(stage, done, total, numbers):
        if stage == "train" and done == step:
            raise StopError

    return report


@pytest.mark.parametrize("loss", ["dr", "focal", "ghm_c", "rank_sort"])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_run_that_goes_on_ends_bit_identical(loss, step, data_folder, tmp_path):
    config = compose([f"loss={loss}", *TINY])
    name = run_id(config)
    whole = run(config, tmp_path / "a", data_folder, silent)
    with pytest.raises(StopError):
        run(config, tmp_path / "b", data_folder, stop_at(step))
    assert json.loads((tmp_path / "b" / name / "status.json").read_text())["state"] == "failed"
    resumed = run(config, tmp_path / "b", data_folder, silent)
    for key, value in weights(tmp_path / "a" / name).items():
        assert torch.equal(value, weights(tmp_path / "b" / name)[key]), key
    assert whole["metrics"] == resumed["metrics"]
    assert whole["densities"] == resumed["densities"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "b" / name / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_the_loss_falls_when_a_few_images_are_learned_by_heart(data_folder, tmp_path):
    overrides = ["schedule.steps=30", "schedule.warmup_steps=3", "runtime.log_every=1", "input.scale=64"]
    config = compose([*overrides, "schedule.precision=fp32"])
    run(config, tmp_path, data_folder, silent)
    lines = (tmp_path / run_id(config) / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_loss_that_is_not_finite_stops_with_its_parts_and_keeps_what_was_done(data_folder, tmp_path):
    config = compose(
        [*TINY, "schedule.steps=40", "schedule.lr=1e30", "schedule.clip_norm=null", "schedule.warmup_steps=0"]
    )
    with pytest.raises(
        RunError, match=r"step \d+: the loss is not finite \(loss nan, classification .*; lower schedule.lr"
    ):
        run(config, tmp_path, data_folder, silent)
    status = json.loads((tmp_path / run_id(config) / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not finite" in status["why"]


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes(255 - byte for byte in content[middle : middle + 64]) + content[middle + 64 :]
    path.write_bytes({"truncated": content[:1000], "empty": b"", "flipped": flipped}[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_ends_the_same(how, data_folder, tmp_path, caplog):
    config = compose([*TINY, "schedule.steps=6", "evaluation.score_thresholds=[0.05]"])
    name = run_id(config)
    run(config, tmp_path / "a", data_folder, silent)
    with pytest.raises(StopError):
        run(config, tmp_path / "b", data_folder, stop_at(5))
    damage(tmp_path / "b" / name / "checkpoint.pt", how)
    run(config, tmp_path / "b", data_folder, silent)
    assert "checkpoint.pt: not a readable checkpoint" in caplog.text
    for key, value in weights(tmp_path / "a" / name).items():
        assert torch.equal(value, weights(tmp_path / "b" / name)[key]), key
    assert not (tmp_path / "b" / name / "checkpoint.before.pt").exists()


def test_checkpoints_that_are_all_damaged_are_named(data_folder, tmp_path):
    config = compose(TINY)
    directory = tmp_path / run_id(config)
    with pytest.raises(StopError):
        run(config, tmp_path, data_folder, stop_at(3))
    damage(directory / "checkpoint.pt", "truncated")
    with pytest.raises(RunError, match=r"checkpoint\.pt: not a readable checkpoint .* remove it to train again"):
        run(config, tmp_path, data_folder, silent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_of_that_very_step(number, data_folder, tmp_path):
    config = compose([*TINY, "runtime.checkpoint_every=100"])
    directory = tmp_path / run_id(config)

    def send(stage, done, total, numbers):
        if stage == "train" and done == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, data_folder, send)
    assert load_checkpoint(directory)["step"] == 3
    assert json.loads((directory / "status.json").read_text()) == {"state": "interrupted", "why": "interrupted"}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_checkpoint_never_runs_code(data_folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"step": 1, "model": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path)


def test_without_any_object_training_says_so(data_folder, tmp_path):
    config = compose(TINY)
    from drrepro.training.loop import train

    with pytest.raises(UsageError, match="no training image has an object"):
        train(torch.nn.Linear(1, 1), [], config, tmp_path, torch.device("cpu"), silent, [])


def learner_of(*overrides):
    config = compose(["input.scale=64", "schedule.images_per_step=2", *overrides])
    model = build_detector(config, 10, torch.device("cpu"))
    model.train()
    learner = build_learner(model, config, torch.device("cpu"))
    return learner, with_targets(make_batch(config, 10, torch.device("cpu")), model, config)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("clip_norm", ["10", "null"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_step_that_was_not_finite_is_named_later_and_updates_no_parameter(
    precision, clip_norm, optimizer, monkeypatch
):
    given = [f"schedule.precision={precision}", f"schedule.clip_norm={clip_norm}", f"schedule.optimizer={optimizer}"]
    learner, part = learner_of(*given)
    forward, calls, kept = DRLoss.forward, [], []

    def spoiled(self, logits, labels):
        calls.append(1)
        return forward(self, logits, labels) + (float("nan") if len(calls) == 3 else 0.0)  # its gradient is finite

    monkeypatch.setattr(DRLoss, "forward", spoiled)
    for step in range(5):
        kept.append([parameter.detach().clone() for parameter in learner.model.parameters()])
        learner.step(step, [part])
    changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(kept)]
    assert changed == [True, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(kept[2], learner.model.parameters(), strict=True))
    with pytest.raises(
        NotFiniteError, match=r"the loss is not finite \(loss nan, classification nan, box \d"
    ) as caught:
        learner.read()
    assert caught.value.step == 2


def test_momentum_begins_with_zero_also_where_the_first_step_is_skipped():
    learner, _ = learner_of("schedule.optimizer=sgd", "schedule.precision=fp32")
    learner.optimizer.found_inf = torch.ones(())
    for parameter in learner.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    learner.optimizer.step()
    assert all((state["momentum_buffer"] == 0).all() for state in learner.optimizer.state.values())
    assert len(learner.optimizer.state) == sum(parameter.requires_grad for parameter in learner.model.parameters())
