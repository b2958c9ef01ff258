"""What the sums of a step's losses are divided by: see loss.normalize."""

import torch
from torch import Tensor

from drrepro.distributed import rank, sum_over_ranks, world
from drrepro.losses.contract import Normalizer

PART = 2  # images of one of the paper's GPUs [R]


def normalizers(labels: list[Tensor], normalize: str) -> list[Normalizer]:
    """Return the normalizer of each pass of this rank, whose ``labels`` are (B, A), B the same in all.

    ``step``: positives and images are those of all passes of all ranks. ``part``: those of PART images that follow one
    another, and the step's loss is the mean over such parts, as in maskrcnn-benchmark, where each GPU's losses are
    divided by what it has of them, and the gradients averaged [M]. So it matters not which pass of which rank has them.
    """
    own = torch.cat([(of_pass > 0).sum(1) for of_pass in labels])
    images, mine = len(own) * world(), slice(rank() * len(own), (rank() + 1) * len(own))
    everywhere = own.new_zeros(images)
    everywhere[mine] = own
    sum_over_ranks(everywhere)
    size = PART if normalize == "part" else images
    parts = -(-images // size)
    part = torch.arange(images, device=own.device) // size
    positives = everywhere.new_zeros(parts).index_add_(0, part, everywhere)[part][mine]
    sizes = everywhere.new_zeros(parts).index_add_(0, part, torch.ones_like(part))[part][mine]
    split = (torch.split(values, [len(of_pass) for of_pass in labels]) for values in (positives, sizes))
    return [Normalizer(own_positives, own_sizes, parts) for own_positives, own_sizes in zip(*split, strict=True)]
