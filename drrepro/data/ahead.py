"""A GPU's next work, handed over while it computes."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def one_ahead(items: Iterator[T], device: torch.device, tensors: Callable[[T], list[Tensor]]) -> Iterator[T]:
    """Yield ``items``; what making one enqueues on a GPU runs beside what is done with the one before.

    It is enqueued on a stream of its own, once that has been. ``tensors`` are those of an item. On a CPU items are
    yielded as they come.
    """
    if device.type != "cuda":
        yield from items
        return
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    while True:
        with torch.cuda.stream(beside):
            item = next(items, None)
        if item is None:
            return
        here = torch.cuda.current_stream(device)
        here.wait_stream(beside)
        for tensor in tensors(item):
            tensor.record_stream(here)  # so that its memory is not used again while this stream reads it
        yield item


def one_behind(items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, each once the next is made: what that enqueues on a GPU runs beside what is done with it."""
    before = next(items, None)
    while before is not None:
        following = next(items, None)
        yield before
        before = following


class HostCopy:
    """A copy to the host of tensors with elements of 32 bits, all at once, that runs while the caller goes on."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = [(tensor.dtype, tensor.shape) for tensor in tensors]
        flat = torch.cat([tensor.contiguous().view(torch.int32).flatten() for tensor in tensors])
        self.copied: torch.cuda.Event | None = None
        if flat.device.type != "cuda":
            self.flat = flat.cpu()
            return
        self.flat = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        self.flat.copy_(flat, non_blocking=True)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.copied.record(torch.cuda.current_stream(flat.device))

    def wait(self) -> list[Tensor]:
        """Return the tensors on the CPU, once they are there."""
        if self.copied is not None:
            self.copied.synchronize()
        parts = torch.split(self.flat, [shape.numel() for _, shape in self.tensors])
        return [part.view(dtype).view(shape) for part, (dtype, shape) in zip(parts, self.tensors, strict=True)]
