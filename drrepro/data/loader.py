"""Batches: for training a pure function of (seed, step), for evaluation the images in order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from drrepro.data.dataset import Sample
from drrepro.data.transforms import load_image
from drrepro.distributed import own_share
from drrepro.errors import RunError
from drrepro.schema import InputConfig

KEEP_BYTES = 2**30  # of decoded images in memory


@dataclass(frozen=True)
class Item:
    """One image, resized: pixels (3, h, w) uint8; boxes (N, 4) float32 in its pixels; labels (N,) int64."""

    sample: Sample
    pixels: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """B normalised images, padded to one size: images (B, 3, H, W), boxes (B, G, 4), labels (B, G), 0 where padded."""

    samples: list[Sample]
    images: Tensor
    sizes: list[tuple[int, int]]  # (height, width) before padding
    boxes: Tensor
    labels: Tensor


class ImageSource(torch.utils.data.Dataset[Item]):
    """Items by (index, flip), without ``ignore`` objects; with ``keep``, decoded ones stay in memory, up to a limit."""

    def __init__(self, samples: list[Sample], config: InputConfig, keep: bool) -> None:
        self.samples = samples
        self.config = config
        self.kept: dict[int, Tensor] | None = {} if keep else None
        self.room = KEEP_BYTES

    def __getitem__(self, key: tuple[int, bool]) -> Item:
        index, flip = key
        sample = self.samples[index]
        pixels = self._pixels(index)
        height, width = pixels.shape[1:]
        scale = np.array([width / sample.width, height / sample.height] * 2)
        boxes = torch.from_numpy((sample.boxes * scale)[~sample.ignore]).float()
        if flip:
            pixels = pixels.flip(2)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
        return Item(sample, pixels, boxes, torch.from_numpy(sample.labels[~sample.ignore]))

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


def training_keys(count: int, batch: int, flip: float, seed: int, step: int) -> list[tuple[int, bool]]:
    """Return the (index, flip) of each image of ``step``: epoch after epoch, each in an order of its own."""
    keys = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        index = int(_epoch_order(count, seed, epoch)[place])
        keys.append((index, bool(np.random.default_rng([seed, 1, position]).random() < flip)))
    return keys


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def training_batches(
    samples: list[Sample], config: InputConfig, batch: int, seed: int, steps: range, workers: int
) -> Iterator[list[Item]]:
    """Yield this rank's share of the items of each of ``steps``; ``batch`` is the number of all."""
    keys = (own_share(training_keys(len(samples), batch, config.flip, seed, step)) for step in steps)
    return _load(ImageSource(samples, config, keep=workers == 0), keys, workers)


def evaluation_batches(samples: list[Sample], config: InputConfig, batch: int, workers: int) -> Iterator[list[Item]]:
    """Yield all items in order, unflipped."""
    keys = [(index, False) for index in range(len(samples))]
    return _load(
        ImageSource(samples, config, keep=False), [keys[i : i + batch] for i in range(0, len(keys), batch)], workers
    )


def _load(source: ImageSource, keys: Iterable[list[tuple[int, bool]]], workers: int) -> Iterator[list[Item]]:
    try:
        yield from DataLoader(source, batch_sampler=keys, num_workers=workers, collate_fn=list)
    except RunError as error:  # from a worker it comes wrapped in the text of its traceback
        raise RunError(str(error).strip().splitlines()[-1].removeprefix("drrepro.errors.RunError: ")) from None


def collate(items: list[Item], config: InputConfig, device: torch.device) -> Batch:
    """Normalise on ``device`` and pad to a common size, a multiple of ``size_divisor``; padding is zero [M]."""
    sizes = [(item.pixels.shape[1], item.pixels.shape[2]) for item in items]
    height, width = (-(-max(side) // config.size_divisor) * config.size_divisor for side in zip(*sizes, strict=True))
    mean = torch.tensor(config.mean, device=device)[:, None, None]
    std = torch.tensor(config.std, device=device)[:, None, None]
    images = torch.zeros(len(items), 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    most = max(len(item.boxes) for item in items)
    boxes, labels = torch.zeros(len(items), most, 4), torch.zeros(len(items), most, dtype=torch.int64)
    for i, (item, (h, w)) in enumerate(zip(items, sizes, strict=True)):
        pixels = item.pixels.to(device, non_blocking=True).float()
        images[i, :, :h, :w] = ((pixels.flip(0) if config.bgr else pixels) - mean) / std
        boxes[i, : len(item.boxes)] = item.boxes
        labels[i, : len(item.labels)] = item.labels
    return Batch([item.sample for item in items], images, sizes, boxes.to(device), labels.to(device))
