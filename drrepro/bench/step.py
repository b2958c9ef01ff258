"""A training step with each loss beside the bare network's, and beside torchvision's RetinaNet of the same shape."""

import statistics
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from drrepro.bench.losses import now, peak_bytes
from drrepro.data.loader import Batch
from drrepro.models.retinanet import RetinaNet, build_detector
from drrepro.schema import Config, ModelConfig
from drrepro.training.loop import build_learner
from drrepro.training.step import DTYPES, Learner, with_targets

OBJECTS = 8  # an image, about as many as COCO has
CLASSES = {"small": 10}  # of a backbone; COCO's 80 of any other
BARE, TORCHVISION = "bare network", "torchvision"
SETUP = ["network", "scale", "images", "precision", "compiled", "device", "threads"]  # of rows measured together
Step = Callable[[], object]


def bench(
    groups: list[list[Config]], repeats: int, device: torch.device, progress: Callable[[int, int], None]
) -> pd.DataFrame:
    """Return a row for each loss of each of ``groups``, see `group`, and for its peers.

    The bare network is forward and backward of a trivial loss, clipping and update. Peers take turns, in an order that
    rotates; seconds are medians of ``repeats`` after two that warm up, ratios the medians over the turns.
    """
    rows: list[dict[str, object]] = []
    for i, configs in enumerate(groups):
        torch.compiler.reset()  # or a size after another is compiled for sizes that vary
        steps = _steps(configs, device)
        seconds = _take_turns(steps, repeats, device, partial(_within, progress, i, len(groups), repeats))
        head = _head(configs[0], device)
        rows += [{**head, **_row(name, seconds, configs), **_memory(step, device)} for name, step in steps.items()]
    return pd.DataFrame(rows)


def _within(progress: Callable[[int, int], None], i: int, groups: int, repeats: int, turn: int) -> None:
    progress(i * (repeats + 2) + turn, groups * (repeats + 2))


def _steps(configs: list[Config], device: torch.device) -> dict[str, Step]:
    """Return what takes turns; each has a network of its own."""
    classes = CLASSES.get(configs[0].model.backbone, 80)
    batch = make_batch(configs[0], classes, device)
    bare = _learner(configs[0], classes, device)
    steps: dict[str, Step] = {BARE: partial(_bare, bare, batch)}
    for config in configs:
        steps[config.loss.name] = partial(_step, _learner(config, classes, device), batch)
    steps[TORCHVISION] = partial(_torchvision, _peer(configs[0], classes, device), batch, configs[0])
    return steps


def _learner(config: Config, classes: int, device: torch.device) -> Learner:
    model = build_detector(config, classes, device)
    model.train()
    return build_learner(model, config, device)


def make_batch(config: Config, classes: int, device: torch.device) -> Batch:
    """Return images of noise, 3:4, with OBJECTS boxes each, as large as a part of a step."""
    generator = torch.Generator().manual_seed(0)
    divisor, short = config.input.size_divisor, config.input.scale
    height, width = (-(-side // divisor) * divisor for side in (short, round(short * 4 / 3)))
    count = config.schedule.images_per_step // config.schedule.accumulate
    images = torch.randn(count, 3, height, width, generator=generator).to(memory_format=torch.channels_last)
    corner = torch.rand(count, OBJECTS, 2, generator=generator) * short / 2
    size = short * (0.1 + 0.3 * torch.rand(count, OBJECTS, 2, generator=generator))
    boxes = torch.cat([corner, corner + size], dim=2)
    labels = torch.randint(1, classes + 1, (count, OBJECTS), generator=generator)
    return Batch([], images.to(device), [(height, width)] * count, boxes.to(device), labels.to(device))


def _step(learner: Learner, batch: Batch) -> None:
    learner.step(0, [with_targets(batch, learner.model, learner.config)])


def _bare(learner: Learner, batch: Batch) -> None:
    dtype = DTYPES[learner.config.schedule.precision]
    with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
        logits, deltas = learner.detector(batch.images)
    _update(logits.float().mean() + deltas.float().mean(), learner.model, learner.optimizer, learner.config)


def _torchvision(peer: tuple[nn.Module, torch.optim.Optimizer], batch: Batch, config: Config) -> None:
    model, optimizer = peer
    dtype = DTYPES[config.schedule.precision]
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]
    with torch.autocast(batch.images.device.type, dtype, enabled=dtype is not None):
        losses = model(list(batch.images), targets)
    _update(sum(losses.values()), model, optimizer, config)


def _update(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, config: Config) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    if config.schedule.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.schedule.clip_norm)
    optimizer.step()
    optimizer.zero_grad()


class _Features(nn.Module):
    """Our backbone and pyramid, as torchvision's detectors take one."""

    def __init__(self, model: RetinaNet, channels: int) -> None:
        super().__init__()
        self.backbone, self.fpn, self.out_channels = model.backbone, model.fpn, channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        features: OrderedDict[str, Tensor] = self.fpn(self.backbone(images))
        return features


def _peer(config: Config, classes: int, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return torchvision's RetinaNet on a backbone and pyramid like ours, with heads as deep, and the same optimizer.

    It is not compiled: it reads values back between its parts.
    """
    model = config.model
    features = _Features(RetinaNet(model, classes), model.fpn_channels)
    anchors = _anchors(model)
    head = RetinaNetHead(model.fpn_channels, anchors.num_anchors_per_location()[0], classes + 1)
    for own in (head.classification_head, head.regression_head):
        own.conv = nn.Sequential(*list(own.conv)[: model.head_convs])
    size = {"min_size": config.input.scale, "max_size": 4 * config.input.scale}
    peer = TorchvisionRetinaNet(features, classes + 1, anchor_generator=anchors, head=head, **size)
    peer.to(device, memory_format=torch.channels_last)
    peer.train()
    trained = [parameter for parameter in peer.parameters() if parameter.requires_grad]
    if config.schedule.optimizer == "sgd":
        return peer, torch.optim.SGD(trained, lr=config.schedule.lr, momentum=config.schedule.momentum, fused=True)
    return peer, torch.optim.AdamW(trained, lr=config.schedule.lr, fused=True)


def _anchors(model: ModelConfig) -> AnchorGenerator:
    sizes = [tuple(int(size * scale) for scale in model.anchor_scales) for size in model.anchor_sizes]
    return AnchorGenerator(tuple(sizes), (tuple(model.anchor_ratios),) * len(sizes))


def _take_turns(
    steps: dict[str, Step], repeats: int, device: torch.device, progress: Callable[[int], None]
) -> dict[str, list[float]]:
    """Return the seconds of each by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(repeats + 2):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = now(device)
            steps[name]()
            seconds[name].append(now(device) - start)
        progress(turn + 1)
    return {name: own[2:] for name, own in seconds.items()}


def _head(config: Config, device: torch.device) -> dict[str, object]:
    images = config.schedule.images_per_step // config.schedule.accumulate
    network = config.model.backbone, config.input.scale, images, config.schedule.precision, config.runtime.compile
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return dict(zip(SETUP, (*network, name, torch.get_num_threads()), strict=True))


def _row(name: str, seconds: dict[str, list[float]], configs: list[Config]) -> dict[str, object]:
    first = configs[0]
    median = statistics.median(seconds[name])
    ratios = {f"x {peer}": _ratio(seconds[name], seconds[peer]) for peer in (BARE, first.loss.name, TORCHVISION)}
    images = first.schedule.images_per_step // first.schedule.accumulate
    return {"step": name, "seconds": median, "images per second": images / median, **ratios}


def _memory(step: Step, device: torch.device) -> dict[str, object]:
    """Return the most that a GPU held during a step beside weights and momenta; what a CPU does is not known."""
    return {"peak MB beside weights": peak_bytes(step, device) / 2**20 if device.type == "cuda" else None}


def _ratio(own: list[float], peer: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, peer, strict=True))


def renewed(table: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``table``, if there is one, with those of ``frame`` in place of what has its `SETUP`."""
    if not table.is_file():
        return frame
    kept = pd.read_csv(table)
    again = pd.MultiIndex.from_frame(kept[SETUP]).isin(pd.MultiIndex.from_frame(frame[SETUP]))
    return pd.DataFrame([*kept[~again].to_dict("records"), *frame.to_dict("records")])


def group(configs: list[Config]) -> list[list[Config]]:
    """Return the configurations by what they are beside the recipe of a loss; each loss once."""
    groups: dict[str, dict[str, Config]] = {}
    for config in configs:
        model, schedule = replace(config.model, prior=0.5), replace(config.schedule, lr=1.0)
        key = repr((model, config.input, schedule, config.runtime.compile))
        groups.setdefault(key, {}).setdefault(config.loss.name, config)
    return [list(own.values()) for own in groups.values()]
