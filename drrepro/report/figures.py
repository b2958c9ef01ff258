"""Figure 1 and the curves behind the tables, drawn from run records."""

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record, metrics_at
from drrepro.files import atomic_write
from drrepro.report.evidence import LOSSES, own_threshold, records_of

matplotlib.use("Agg")

COLOURS = {"focal": "#c1532f", "dr": "#1f6f8b"}
NAMES = {"focal": "focal loss", "dr": "DR loss"}
SMOOTHING = 5  # bins of the score densities


def draw_figures(plans: list[Plan], runs: Path, results: Path) -> list[Path]:
    """Draw what the plans' records allow under results/<data>/; return the paths."""
    paths = []
    for plan in plans:
        by_loss = {loss: _records(plan, runs, loss) for loss in LOSSES}
        found = {loss: records for loss, records in by_loss.items() if records}
        if not found or plan.kind in ("grid", "nms"):
            continue
        drawings = (
            {"ap_scale": ap_against_scale(found)}
            if plan.kind == "scales"
            else {
                "figure1": score_densities({loss: records[0] for loss, records in found.items()}),
                "ap_threshold": ap_against_threshold(found),
                "training": training_curves(found, runs),
            }
        )
        for name, figure in drawings.items():
            path = results / plan.data / f"{name}.png"
            if path in paths:  # another plan of the same runs
                continue
            atomic_write(path, lambda file, figure=figure: figure.savefig(file, format="png", dpi=150))  # type: ignore[misc]
            paths.append(path)
    return paths


def score_densities(records: dict[str, Record]) -> Figure:
    """Figure 1: densities of the scores of foreground and background; below, the background's divided by 10."""
    figure, axes = _canvas(2, len(records), (4.2 * len(records), 6.0))
    for column, (loss, record) in enumerate(records.items()):
        foreground, background = (_density(record["densities"][name]) for name in ("foreground", "background"))
        # The few thousand foreground scores are smoothed over neighbouring bins, the millions of the others are not.
        foreground = np.convolve(foreground, np.ones(SMOOTHING) / SMOOTHING, "same")
        centers = (np.arange(len(background)) + 0.5) / len(background)
        for row, (part, decay) in enumerate((("(a)", 1), ("(b)", 10))):
            ax = axes[row][column]
            label = "background" if decay == 1 else f"background / {decay}"
            for name, density, colour in (
                (label, background / decay, "#7a7a7a"),
                ("foreground", foreground, COLOURS[loss]),
            ):
                ax.plot(centers, density, color=colour, label=name)
                ax.fill_between(centers, density, color=colour, alpha=0.25)
            ax.set(title=f"{part} {NAMES[loss]}", xlabel="score", ylabel="density", xlim=(0, 1), ylim=(0, None))
            ax.legend(frameon=False)
    return figure


def _density(counts: list[int]) -> npt.NDArray[np.float64]:
    """Return a histogram over scores from 0 to 1 as a density, which integrates to one."""
    total: npt.NDArray[np.float64] = np.array(counts, dtype=np.float64)
    total *= len(total) / max(1.0, total.sum())
    return total


def ap_against_threshold(records: dict[str, list[Record]]) -> Figure:
    """Table 1 as curves, at every hundredth; dots are the paper's six thresholds."""
    figure, axes = _canvas(1, 1, (5.6, 3.8))
    ax = axes[0][0]
    for loss, own in records.items():
        curves = [{p["score_threshold"]: p["AP"] for p in record["curve"] if p["AP"] is not None} for record in own]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        _line(ax, loss, shared, [[100 * curve[t] for t in shared] for curve in curves])
        marks = [t for t in own[0]["config"]["evaluation"]["score_thresholds"] if t in shared]
        means = [100 * float(np.mean([curve[t] for curve in curves])) for t in marks]
        ax.plot(marks, means, "o", color=COLOURS[loss], markersize=4)
    ax.set(xlabel="score threshold", ylabel="AP", xlim=(0, 1), ylim=(0, None))
    ax.legend(frameon=False)
    return figure


def ap_against_scale(records: dict[str, list[Record]]) -> Figure:
    """Table 2 as curves."""
    figure, axes = _canvas(1, 1, (5.6, 3.8))
    ax = axes[0][0]
    for loss, own in records.items():
        points: dict[int, list[float]] = {}
        for record in own:
            row = metrics_at(record, own_threshold(record))
            if row is not None and row["AP"] is not None:
                points.setdefault(record["config"]["input"]["scale"], []).append(100 * row["AP"])
        scales = sorted(points)
        ax.plot(scales, [float(np.mean(points[s])) for s in scales], "o-", color=COLOURS[loss], label=NAMES[loss])
    ax.set(xlabel="input scale: short side in training and test, px", ylabel="AP", ylim=(0, None))
    ax.legend(frameon=False)
    return figure


def training_curves(records: dict[str, list[Record]], runs: Path) -> Figure:
    """Classification and box loss of the first seed of each loss, as logged."""
    figure, axes = _canvas(1, 2, (8.4, 3.6))
    for loss, own in records.items():
        lines = _read_metrics(runs / own[0]["id"] / "metrics.jsonl")
        for ax, part in zip(axes[0], ("classification", "box"), strict=True):
            ax.plot(
                [line["step"] for line in lines], [line[part] for line in lines], color=COLOURS[loss], label=NAMES[loss]
            )
            ax.set(xlabel="step", ylabel=f"{part} loss")
    for ax in axes[0]:
        ax.set_ylim(0, None)
        ax.legend(frameon=False)
    return figure


def _records(plan: Plan, runs: Path, loss: str) -> list[Record]:
    found = records_of(plan, runs)
    return [found[c.run_id] for c in plan.cells if c.loss == loss and c.run_id in found]


def _read_metrics(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def _line(ax: Axes, loss: str, x: Sequence[float], curves: list[list[float]]) -> None:
    mean = np.mean(curves, axis=0)
    ax.plot(x, mean, color=COLOURS[loss], label=NAMES[loss])
    if len(curves) > 1:
        ax.fill_between(x, np.min(curves, axis=0), np.max(curves, axis=0), color=COLOURS[loss], alpha=0.2)
