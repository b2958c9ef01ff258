"""The ranks that torchrun starts. Without it there is one, and nothing here does anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait for the first: for the run's lock, and while it computes the metrics


def rank() -> int:
    """Return this process's number, from 0; rank 0 writes and prints."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Return how many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other ranks, over NCCL on GPUs and gloo on CPUs, for the time of the context."""
    if world() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL sends objects through
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of every rank's ``values``, in place."""
    if world() > 1:
        distributed.all_reduce(values)
    return values


def on_any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether ``flag`` is true somewhere: on each rank the same."""
    return flag if world() == 1 else bool(sum_over_ranks(torch.tensor(float(flag), device=device)).item())


def all_parts(part: T) -> list[T]:
    """Return every rank's ``part``, in the order of their numbers, on each rank."""
    if world() == 1:
        return [part]
    parts: list[Any] = [None] * world()
    distributed.all_gather_object(parts, part)
    return parts


def first_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of the first: batch norm's running statistics, which each keeps of its own images."""
    if world() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


def own_share(items: list[T]) -> list[T]:
    """Return this rank's share of ``items``, a contiguous one, so that the shares in order are the whole."""
    return items[rank() * len(items) // world() : (rank() + 1) * len(items) // world()]
