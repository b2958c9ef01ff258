"""Batches: for training a pure function of (seed, step), for evaluation the images in order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from drrepro.data.dataset import Sample
from drrepro.data.transforms import load_image, scale_boxes
from drrepro.distributed import own_share
from drrepro.errors import RunError
from drrepro.schema import InputConfig

KEEP_BYTES = 2**30  # of decoded images in memory


@dataclass(frozen=True)
class Item:
    """One image as a worker hands it over: pixels (3, h, w) uint8, resized; ``flip``: `collate` is to mirror it."""

    sample: Sample
    pixels: Tensor
    flip: bool

    def targets(self, inclusive: bool = False) -> tuple[Tensor, Tensor]:
        """Return boxes (N, 4) float32 in resized pixels, mirrored if so, and labels (N,); no ``ignore`` objects.

        ``inclusive``: see `scale_boxes`.
        """
        height, width = self.pixels.shape[1:]
        scale = (width / self.sample.width, height / self.sample.height)
        boxes = scale_boxes(torch.from_numpy(self.sample.boxes[~self.sample.ignore]), scale, inclusive).float()
        if self.flip:
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return boxes, torch.from_numpy(self.sample.labels[~self.sample.ignore])

    def pin_memory(self) -> "Item":
        """Return the item with its pixels where a GPU can fetch them while it computes; for the DataLoader."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class Batch:
    """B normalised images, padded to one size: images (B, 3, H, W), boxes (B, G, 4), labels (B, G), 0 where padded."""

    samples: list[Sample]
    images: Tensor
    sizes: list[tuple[int, int]]  # (height, width) before padding
    boxes: Tensor
    labels: Tensor


class ImageSource(torch.utils.data.Dataset[Item]):
    """Items by (index, flip); with ``keep``, decoded ones stay in memory, up to a limit."""

    def __init__(self, samples: list[Sample], config: InputConfig, keep: bool) -> None:
        self.samples = samples
        self.config = config
        self.kept: dict[int, Tensor] | None = {} if keep else None
        self.room = KEEP_BYTES

    def __getitem__(self, key: tuple[int, bool]) -> Item:
        index, flip = key
        return Item(self.samples[index], self._pixels(index), flip)

    def _pixels(self, index: int) -> Tensor:
        if self.kept is None:
            return load_image(self.samples[index], self.config)
        if index in self.kept:
            return self.kept[index]
        pixels = load_image(self.samples[index], self.config)
        if self.room >= pixels.numel():
            self.room -= pixels.numel()
            self.kept[index] = pixels
        return pixels


def training_keys(
    count: int, batch: int, flip: float, seed: int, step: int, portraits: frozenset[int] | None = None
) -> list[tuple[int, bool]]:
    """Return the (index, flip) of each image of ``step``: epoch after epoch, each in an order of its own.

    With ``portraits``, the indices of the images no wider than high, a step has one orientation, see `_group`. The
    paper's code groups the two images of a GPU [M]; here each rank and pass takes a part of a step.
    """
    keys = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        index = int(_epoch_order(count, batch, seed, epoch, portraits)[place])
        keys.append((index, bool(np.random.default_rng([seed, 1, position]).random() < flip)))
    return keys


@lru_cache(maxsize=2)
def _epoch_order(
    count: int, batch: int, seed: int, epoch: int, portraits: frozenset[int] | None
) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng([seed, 0, epoch])
    order = rng.permutation(count)
    return order if portraits is None else _group(order, batch, -epoch * count % batch, portraits, rng)


def _group(
    order: npt.NDArray[np.int64], batch: int, first: int, portraits: frozenset[int], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Reorder an epoch so that its batches have one orientation, in random order; every image still comes once.

    ``first`` images fill the batch that the epoch before began. They, and those that begin the last batch, are of the
    commoner orientation. At most one other batch mixes the two: what neither orientation fills a batch with.
    """
    portrait = np.zeros(len(order), np.bool_)
    portrait[list(portraits)] = True
    mostly_portraits = 2 * len(portraits) > len(order)
    rarer = portrait != mostly_portraits
    commoner_first = order[np.argsort(rarer[order], kind="stable")]
    first = min(first, len(order))
    last = (len(order) - first) % batch
    ends, whole = np.split(commoner_first, [first + last])
    batches = rng.permutation(whole.reshape(-1, batch))
    return np.concatenate([ends[:first], batches.ravel(), ends[first:]])


def training_batches(
    samples: list[Sample], config: InputConfig, batch: int, seed: int, steps: range, workers: int, pin: bool = False
) -> Iterator[list[Item]]:
    """Yield this rank's share of the items of each of ``steps``; ``batch`` is the number of all; ``pin`` for a GPU."""
    portraits = None
    if config.group_by_aspect:
        portraits = frozenset(i for i, sample in enumerate(samples) if sample.height >= sample.width)  # [M]
    keys = (own_share(training_keys(len(samples), batch, config.flip, seed, step, portraits)) for step in steps)
    return _load(ImageSource(samples, config, keep=workers == 0), keys, workers, pin)


def evaluation_batches(
    samples: list[Sample], config: InputConfig, batch: int, workers: int, pin: bool = False
) -> Iterator[list[Item]]:
    """Yield all items in order, unflipped; ``pin`` them for a GPU."""
    keys = [(index, False) for index in range(len(samples))]
    batches = [keys[i : i + batch] for i in range(0, len(keys), batch)]
    return _load(ImageSource(samples, config, keep=False), batches, workers, pin)


def _load(source: ImageSource, keys: Iterable[list[tuple[int, bool]]], workers: int, pin: bool) -> Iterator[list[Item]]:
    try:
        yield from DataLoader(
            source,
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=list,
            pin_memory=pin,
            worker_init_fn=start_worker,
        )
    except RunError as error:  # from a worker it comes wrapped in the text of its traceback
        raise RunError(str(error).strip().splitlines()[-1].removeprefix("drrepro.errors.RunError: ")) from None


def start_worker(number: int) -> None:
    """Let a worker keep the memory of one image for the next: asking the kernel for it costs a tenth of the time.

    glibc does so with all blocks up to the largest that was ever freed, of 32 MiB at most, see mallopt(3).
    """
    bytearray(2**25 - 2**16)


def _padded(side: int, config: InputConfig) -> int:
    """Return the smallest of ``pad_to`` that holds a side or, where none does, a multiple of ``size_divisor``."""
    whole = -(-side // config.size_divisor) * config.size_divisor
    return min((size for size in config.pad_to if size >= side), default=whole)


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return (3, 1, 1) on a device, brought there once, since a GPU waits for what a list becomes."""
    return torch.tensor(values, device=device)[:, None, None]


def collate(items: list[Item], config: InputConfig, device: torch.device, inclusive: bool = False) -> Batch:
    """Mirror and normalise on ``device`` and pad to one size, see `_padded`; padding is zero [M].

    ``inclusive``: see `scale_boxes`.
    """
    sizes = [(item.pixels.shape[1], item.pixels.shape[2]) for item in items]
    height, width = (_padded(max(side), config) for side in zip(*sizes, strict=True))
    mean, std = (_by_channel(tuple(values), device) for values in (config.mean, config.std))
    images = torch.empty((len(items), 3, height, width), device=device, memory_format=torch.channels_last).zero_()
    targets = [item.targets(inclusive) for item in items]
    most = max(len(own) for own, _ in targets)
    pin = device.type == "cuda"
    boxes = torch.zeros(len(items), most, 4, pin_memory=pin)
    labels = torch.zeros(len(items), most, dtype=torch.int64, pin_memory=pin)
    for i, (item, (h, w)) in enumerate(zip(items, sizes, strict=True)):
        pixels = item.pixels.to(device, non_blocking=True)
        pixels = pixels.flip([0] * config.bgr + [2] * item.flip).float()
        images[i, :, :h, :w] = (pixels - mean) / std
        boxes[i, : len(targets[i][0])], labels[i, : len(targets[i][0])] = targets[i]
    on_device = (boxes.to(device, non_blocking=True), labels.to(device, non_blocking=True))
    return Batch([item.sample for item in items], images, sizes, *on_device)
