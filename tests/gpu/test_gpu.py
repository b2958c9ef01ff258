"""What only a GPU can show; `make gpu` runs these, and benchmarks. Elsewhere they are skipped."""

from dataclasses import replace

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from drrepro.bench.step import make_batch
from drrepro.config import compose, run_id
from drrepro.data.ahead import one_ahead
from drrepro.data.loader import Batch
from drrepro.detection.pipeline import propose
from drrepro.distributed import own_share, process_group
from drrepro.experiments.run import run
from drrepro.losses.named import LOSSES, build_loss
from drrepro.models.retinanet import build_detector
from drrepro.progress import silent
from drrepro.training.loop import build_learner
from drrepro.training.step import with_targets
from tests.conftest import TINY
from tests.test_distributed import as_rank
from tests.training.test_loop import StopError, stop_at, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
STATIC = ["focal", "dr", "balanced_ce", "quality_focal", "varifocal"]
SMALL = ["input.scale=128", "schedule.images_per_step=4", "schedule.precision=fp32"]


def learner_on(device, config):
    torch.manual_seed(0)
    model = build_detector(config, 10, device)
    model.train()
    return build_learner(model, config, device)


def part_on(device, learner):
    return with_targets(make_batch(learner.config, 10, device), learner.model, learner.config)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_and_its_gradient_are_those_of_the_cpu(name):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 2000, 20, generator=generator) - 3
    labels = torch.randint(-1, 21, (2, 2000), generator=generator) * (torch.rand(2, 2000, generator=generator) < 0.1)
    ious = torch.rand(2, 2000, generator=generator)
    found = {}
    for device in (CPU, GPU):
        loss, own = build_loss(compose([f"loss={name}"]).loss), logits.to(device).requires_grad_()
        value = loss(own, labels.to(device), **({"ious": ious.to(device)} if loss.needs_ious else {}))
        value.backward()
        found[device.type] = value.detach().cpu(), own.grad.cpu()
    (value, gradient), (expected, slope) = found["cuda"], found["cpu"]
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
    assert (gradient - slope).abs().max() <= 1e-5 * slope.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", STATIC)
def test_a_step_makes_the_gpu_wait_for_nothing(name, precision):
    learner = learner_on(GPU, compose([f"loss={name}", *SMALL, f"schedule.precision={precision}"]))
    for step in range(2):  # what is made once is made
        learner.step(step, [part_on(GPU, learner)])
    batch = make_batch(learner.config, 10, GPU)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(2, [with_targets(batch, learner.model, learner.config)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    learner.read()


@pytest.fixture
def exact():
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.usefixtures("exact")
def test_a_step_on_the_gpu_is_that_on_the_cpu(name):
    config = compose([f"loss={name}", *SMALL, "schedule.optimizer=sgd", "schedule.clip_norm=null"])
    numbers, parameters = {}, {}
    for device in (CPU, GPU):
        learner = learner_on(device, config)
        before = [p.detach().cpu().clone() for p in learner.model.parameters()]
        learner.step(0, [part_on(device, learner)])
        numbers[device.type] = learner.read()
        parameters[device.type] = [
            p.detach().cpu() - b for p, b in zip(learner.model.parameters(), before, strict=True)
        ]
    assert numbers["cuda"] == pytest.approx(numbers["cpu"], rel=1e-4)
    for one, other in zip(parameters["cuda"], parameters["cpu"], strict=True):
        assert (one - other).norm() <= 0.02 * other.norm() + 1e-7


def test_what_is_made_ahead_is_what_is_made_in_turn():
    learner = learner_on(GPU, compose(["loss=focal", *SMALL]))

    def parts():
        for shift in range(20):
            batch = make_batch(learner.config, 10, CPU)
            images = (batch.images + shift).pin_memory().to(GPU, non_blocking=True)
            yield replace(batch, images=images, boxes=batch.boxes.to(GPU), labels=batch.labels.to(GPU))

    expected = [batch.images.sum() for batch in parts()]
    seen = []
    for batch in one_ahead(parts(), GPU, lambda batch: [batch.images, batch.boxes, batch.labels]):
        learner.model(batch.images)  # keeps the GPU busy while the next is made
        seen.append(batch.images.sum())
    assert torch.equal(torch.stack(seen), torch.stack(expected))


def test_a_batch_is_evaluated_without_a_wait_until_it_is_asked_for():
    learner = learner_on(GPU, compose(["loss=focal", *SMALL]))
    batch, labels = part_on(GPU, learner)
    model = learner.model.eval()
    expected, counts = propose(model, batch, learner.config, 0.0, [labels[1]]).wait()
    torch.cuda.set_sync_debug_mode("error")
    try:
        proposals = propose(model, batch, learner.config, 0.0, [labels[1]])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found, again = proposals.wait()
    assert all(torch.equal(one.scores, other.scores) for one, other in zip(found, expected, strict=True))
    assert torch.equal(again[0], counts[0])


def rank(number, count, folder):
    with as_rank(number, "29514", count), process_group(torch.device("cuda", number)):
        device = torch.device("cuda", number)
        config = compose(
            ["loss=focal", *SMALL, "schedule.optimizer=sgd", "model.backbone=resnet18", "model.norm=frozen"]
        )
        learner = learner_on(device, config)
        batch = make_batch(config, 10, device)
        mine = own_share(list(range(len(batch.images))))
        own = Batch([], batch.images[mine], [batch.sizes[i] for i in mine], batch.boxes[mine], batch.labels[mine])
        learner.step(0, [with_targets(own, learner.model, config)])
        torch.save(learner.read(), f"{folder}/{count}-{number}.pt")


def test_ddp_of_one_does_what_the_model_does(exact):
    config = compose(["loss=focal", *SMALL, "schedule.optimizer=sgd", "model.backbone=resnet18", "model.norm=frozen"])
    alone, shared = learner_on(GPU, config), learner_on(GPU, config)
    distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29515", world_size=1, rank=0)
    try:
        shared.detector = DistributedDataParallel(shared.model, [0])
        for learner in (alone, shared):
            learner.step(0, [part_on(GPU, learner)])
        for one, other in zip(shared.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(one, other)
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_ranks_on_gpus_do_what_one_does(tmp_path):
    found = []
    for count in (1, 2):
        multiprocessing.spawn(rank, (count, str(tmp_path)), nprocs=count)
        found += [torch.load(path, weights_only=True) for path in sorted(tmp_path.glob(f"{count}-*.pt"))]
    assert all(numbers == pytest.approx(found[0], rel=1e-3) for numbers in found)


def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(data_folder, tmp_path, exact):
    config = compose([*TINY, "runtime.device=cuda", "schedule.optimizer=sgd", "schedule.precision=fp32"])
    whole = run(config, tmp_path / "a", data_folder, silent)
    with pytest.raises(StopError):
        run(config, tmp_path / "b", data_folder, stop_at(3))
    resumed = run(config, tmp_path / "b", data_folder, silent)
    assert whole["cost"]["gpu_memory_mb"] > 0
    assert resumed["machine"]["device"] == whole["machine"]["device"] == torch.cuda.get_device_name()
    for key, value in weights(tmp_path / "a" / run_id(config)).items():
        torch.testing.assert_close(weights(tmp_path / "b" / run_id(config))[key], value, rtol=1e-2, atol=1e-3)
