"""How fast one worker of the input pipeline reads images, beside plain decoding and resizing of the same files."""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader

from drrepro.data.dataset import Sample
from drrepro.data.loader import ImageSource, start_worker
from drrepro.data.splits import open_split
from drrepro.data.transforms import target_size
from drrepro.schema import Config, InputConfig

BATCH = 2  # images that a worker hands over at once: those of one of the paper's GPUs [R]
MARGIN = 4  # batches before and after the measured ones, so that a worker starts and ends outside them


def bench(
    config: Config, data_folder: Path, images: int, repeats: int, progress: Callable[[int, int], None]
) -> pd.DataFrame:
    """Return images per second of the first ``images`` training images, and the ratio to plain decode and resize.

    Peers take turns; medians of ``repeats`` after one that warms up. The pipeline also checks the size, makes a tensor,
    scales the boxes, and hands both over from its worker. Mirroring, normalising and padding are the device's part and
    not measured.
    """
    samples = open_split(config.data, "train", data_folder).samples[:images]
    peers: dict[str, Callable[[], float]] = {
        "plain decode + resize": lambda: _measure(_plain(samples, config.input), len(samples)),
        "pipeline, in this process": lambda: _pipeline(samples, config.input, workers=0),
        "pipeline, one worker": lambda: _pipeline(samples, config.input, workers=1),
    }
    rates: dict[str, list[float]] = {name: [] for name in peers}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        for repeat in range(repeats + 1):
            for name, peer in peers.items():
                rates[name].append(peer())
            progress(repeat + 1, repeats + 1)
    finally:
        torch.set_num_threads(before)
    frame = pd.DataFrame(
        [
            {"read by": n, "scale": config.input.scale, "images": len(samples), "per second": statistics.median(r[1:])}
            for n, r in rates.items()
        ]
    )
    return frame.assign(ratio=frame["per second"] / frame["per second"][0])


def _plain(samples: list[Sample], config: InputConfig) -> Iterator[Image.Image]:
    for sample in samples:
        height, width = target_size(sample.height, sample.width, config.scale, config.max_ratio)
        with Image.open(sample.path) as image:
            yield image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def _pipeline(samples: list[Sample], config: InputConfig, workers: int) -> float:
    """Return images per second, each image once."""
    keys = [(index, False) for index in range(len(samples))]
    batches = [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]
    around = batches[-MARGIN:] + batches + batches[:MARGIN]
    source = ImageSource(samples, config, keep=False)
    items = iter(
        DataLoader(source, batch_sampler=around, num_workers=workers, collate_fn=list, worker_init_fn=start_worker)
    )
    for _ in islice(items, min(MARGIN, len(batches))):
        pass
    return _measure(islice(items, len(batches)), len(samples))


def _measure(read: Iterator[object], images: int) -> float:
    start = time.perf_counter()
    for _ in read:
        pass
    return images / (time.perf_counter() - start)
