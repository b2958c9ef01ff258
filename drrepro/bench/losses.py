"""The losses against the plain formulas and torchvision's: time and memory, in one process run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from drrepro.losses import (
    APLoss,
    BalancedCrossEntropy,
    DRLoss,
    FocalLoss,
    GHMCLoss,
    QualityFocalLoss,
    RankSortLoss,
    VarifocalLoss,
    reference,
)

matplotlib.use("Agg")

SIZES = ((4_000, 10), (20_000, 20), (50_000, 80), (100_000, 80), (200_000, 80))  # anchors, classes
POSITIVES, IGNORED = 200, 500
CPU = torch.device("cpu")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Timing:
    """One loss at one size: median milliseconds, and peak memory beside the logits in multiples of theirs."""

    loss: str
    anchors: int
    classes: int
    device: str
    threads: int
    forward_ms: float
    backward_ms: float
    total_ms: float
    extra_memory: float


def torchvision_focal(logits: Tensor, labels: Tensor) -> Tensor:
    """torchvision's focal loss of the anchors that count, with the one-hot target that it asks for."""
    valid = labels >= 0
    target = functional.one_hot(labels[valid], logits.shape[2] + 1)[:, 1:].to(logits.dtype)
    total: Tensor = sigmoid_focal_loss(logits[valid], target, reduction="sum")
    return total / ((labels > 0).sum() + len(labels))


def with_ious(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Return a loss that is given an IoU, another for each positive."""
    ious = torch.linspace(0, 1, labels.numel(), device=labels.device).view_as(labels)
    return loss(logits, labels, ious=ious)  # type: ignore[no-any-return]


def plain_copy(logits: Tensor, labels: Tensor) -> Tensor:
    """The bytes that a loss cannot avoid and nothing else: read the logits, read them again, write a gradient."""
    return _Copy.apply(logits)  # type: ignore[no-any-return]


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: "torch.autograd.function.FunctionCtx", logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.sum()

    @staticmethod
    def backward(ctx: "torch.autograd.function.FunctionCtx", upstream: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.empty_like(logits).copy_(logits)


PEERS: dict[str, Loss] = {
    "DRLoss": DRLoss(),
    "naive DR": reference.dr_loss,
    "FocalLoss": FocalLoss(),
    "torchvision focal": torchvision_focal,
    "BalancedCrossEntropy": BalancedCrossEntropy(),
    "QualityFocalLoss": partial(with_ious, QualityFocalLoss()),
    "VarifocalLoss": partial(with_ious, VarifocalLoss()),
    "GHMCLoss": GHMCLoss(),
    "APLoss": APLoss(),
    "RankSortLoss": partial(with_ious, RankSortLoss()),
    "plain copy": plain_copy,
}


def bench(
    sizes: list[tuple[int, int]],
    threads: list[int],
    repeats: int,
    compiled: bool,
    progress: Callable[[int, int], None],
    device: torch.device = CPU,
) -> pd.DataFrame:
    """Return a row a loss, size and number of threads; ``ratio`` is to DRLoss or FocalLoss where that is the peer."""
    peers = {**PEERS, "compiled DR": torch.compile(reference.dr_loss)} if compiled else PEERS
    rows, before = [], torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            for size in sizes:
                logits, labels = (values.detach().to(device) for values in problem(*size))
                logits.requires_grad_()
                for name, loss in peers.items():
                    rows.append(measure(name, loss, logits, labels, repeats))
                    progress(len(rows), len(threads) * len(sizes) * len(peers))
    finally:
        torch.set_num_threads(before)
    frame = pd.DataFrame([asdict(row) for row in rows])
    for ours in ("DRLoss", "FocalLoss"):
        own = frame[frame["loss"] == ours].set_index(["anchors", "classes", "threads"])["total_ms"]
        keys = pd.MultiIndex.from_frame(frame[["anchors", "classes", "threads"]])
        frame[f"against {ours}"] = frame["total_ms"].to_numpy() / own.loc[keys].to_numpy()
    return frame


def problem(anchors: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return logits (1, A, K) around the prior of 0.01, and labels with POSITIVES and IGNORED anchors."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(1, anchors, classes, generator=generator) - 4.6).requires_grad_()
    labels = torch.zeros(1, anchors, dtype=torch.int64)
    special = torch.randperm(anchors, generator=generator)[: POSITIVES + IGNORED]
    labels[0, special[:POSITIVES]] = torch.randint(1, classes + 1, (POSITIVES,), generator=generator)
    labels[0, special[POSITIVES:]] = -1
    return logits, labels


def measure(name: str, loss: Loss, logits: Tensor, labels: Tensor, repeats: int) -> Timing:
    """Return medians of ``repeats`` after one warm-up, which also yields the memory."""
    device = logits.device
    extra = peak_memory(loss, logits, labels) / (logits.numel() * logits.element_size())
    forward, backward = [], []
    for _ in range(repeats):
        logits.grad = None
        start = now(device)
        value = loss(logits, labels)
        middle = now(device)
        value.backward()  # type: ignore[no-untyped-call]
        end = now(device)
        forward.append(1e3 * (middle - start))
        backward.append(1e3 * (end - middle))
    logits.grad = None
    medians = statistics.median(forward), statistics.median(backward)
    anchors, classes = logits.shape[1:]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Timing(name, anchors, classes, where, torch.get_num_threads(), *medians, sum(medians), extra)


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(loss: Loss, logits: Tensor, labels: Tensor) -> int:
    """Return the most bytes that PyTorch held at once during forward and backward, the gradient included."""
    peak = peak_bytes(lambda: loss(logits, labels).backward(), logits.device)  # type: ignore[no-untyped-call]
    logits.grad = None
    return peak


def peak_bytes(call: Callable[[], object], device: torch.device = CPU) -> int:
    """Return the most bytes that PyTorch held at once on a device during a call, beside those it had before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = call()  # until the profile ends
    del kept
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    held, peak = 0, 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def draw(frame: pd.DataFrame) -> Figure:
    """Draw total milliseconds against the number of logits, a panel a number of threads."""
    threads = sorted(frame["threads"].unique())
    figure = Figure(figsize=(4.2 * len(threads) + 2.2, 3.8), layout="constrained")
    axes = figure.subplots(1, len(threads), squeeze=False)[0]
    for ax, count in zip(axes, threads, strict=True):
        ax.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)  # type: ignore[attr-defined]
        for name, own in frame[frame["threads"] == count].groupby("loss", sort=False):
            ax.plot(own["anchors"] * own["classes"], own["total_ms"], "o-", markersize=3, label=name)
        ax.set(xscale="log", yscale="log", xlabel="logits", ylabel="forward + backward, ms")
        ax.set_title(f"{count} thread{'s' if count > 1 else ''}")
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    return figure
