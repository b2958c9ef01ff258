"""Figure 1 and the curves behind the tables, drawn from run records."""

import json
from collections.abc import Sequence, Sized
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drrepro.errors import UsageError
from drrepro.experiments.plan import Plan
from drrepro.experiments.records import Record, metrics_at
from drrepro.files import atomic_write
from drrepro.report.evidence import LOSSES, own_threshold, records_of
from drrepro.shape import misfit

matplotlib.use("Agg")

COLOURS = {"focal": "#c1532f", "dr": "#1f6f8b"}
NAMES = {"focal": "focal loss", "dr": "DR loss"}
BACKGROUND = "#6b6b6b"
SMOOTHING = 5  # bins of the score densities


def draw_figures(plans: list[Plan], runs: Path, results: Path) -> list[Path]:
    """Draw what the plans' records allow under results/<data>/; return the paths."""
    paths: list[Path] = []
    for plan in plans:
        for name, figure in plan_figures(plan, runs).items():
            path = results / plan.data / f"{name}.png"
            if path in paths:  # another plan of the same runs
                continue
            paths.append(write_png(figure, path))
    return paths


def plan_figures(plan: Plan, runs: Path) -> dict[str, Figure]:
    """Return what the plan's records allow, by name."""
    by_loss = {loss: _records(plan, runs, loss) for loss in LOSSES}
    found = {loss: records for loss, records in by_loss.items() if records}
    if not found or plan.kind in ("grid", "nms"):
        return {}
    if plan.kind == "scales":
        return {"ap_scale": ap_against_scale(found)}
    figures = {}
    known = {loss: [r for r in records if r["densities"] is not None] for loss, records in found.items()}
    if all(known.values()):  # not of a secret test split
        figures["figure1"] = score_densities([records[0] for records in known.values()])
        figures["ap_threshold"] = ap_against_threshold(known)
    return {**figures, "training": training_curves(found, runs)}


def draw_figure1(records: list[Record], path: Path) -> list[Path]:
    """Draw Figure 1 of any runs beside each other as ``path``.png and .svg; return both."""
    for record in records:
        if record["densities"] is None:
            raise UsageError(f"{record['id']}: a secret test split, so nobody here knows which scores are foreground's")
    figure = score_densities(records)
    paths = [path.with_name(path.name.removesuffix(".png").removesuffix(".svg") + end) for end in (".png", ".svg")]
    write_png(figure, paths[0])
    with matplotlib.rc_context({"svg.hashsalt": "figure1"}):  # the same figure, the same file
        atomic_write(paths[1], lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
    return paths


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure and return its path."""
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return path


def score_densities(records: list[Record]) -> Figure:
    """Figure 1, a column for each record: the densities of foreground and background scores, and their means.

    Row (b) shows the background's divided by 10. The columns share their axes. Runs of one loss are told apart by id.
    """
    figure, axes = _canvas(2, len(records), (4.2 * len(records), 6.0), sharex=True, sharey="row")
    losses = [record["config"]["loss"]["name"] for record in records]
    for column, (loss, record) in enumerate(zip(losses, records, strict=True)):
        title = NAMES[loss] if losses.count(loss) == 1 else f"{NAMES[loss]}\n{record['id']}"
        counts = record["densities"]
        # The few thousand foreground scores are smoothed over neighbouring bins, the millions of the others are not.
        foreground = np.convolve(_density(counts["foreground"]), np.ones(SMOOTHING) / SMOOTHING, "same")
        for row, (part, decay) in enumerate((("(a)", 1), ("(b)", 10))):
            ax = axes[row][column]
            background = _density(counts["background"]) / decay
            label = "background" if decay == 1 else f"background / {decay}"
            _fill(ax, background, f"{label}, mean", mean_score(counts["background"]), BACKGROUND)
            _fill(ax, foreground, "foreground, mean", mean_score(counts["foreground"]), COLOURS[loss])
            ax.set_title(f"{part} {title}")
            ax.legend(edgecolor="none", framealpha=0.85)
    for ax in axes[1]:
        ax.set(xlabel="score", xlim=(0, 1))
    for row_axes in axes:
        row_axes[0].set(ylabel="density", ylim=(0, None))  # now that all is drawn, since it ends the scaling
    return figure


def mean_score(counts: list[int]) -> float:
    """Return the mean of a histogram over scores from 0 to 1, NaN for an empty one."""
    return float(np.dot(counts, _centers(counts)) / np.sum(counts)) if any(counts) else float("nan")


def _fill(ax: Axes, density: npt.NDArray[np.float64], label: str, mean: float, colour: str) -> None:
    ax.plot(_centers(density), density, color=colour, label=f"{label} {mean:.2f}")
    ax.fill_between(_centers(density), density, color=colour, alpha=0.25)
    ax.axvline(mean, color=colour, linestyle="--", linewidth=1)


def _centers(bins: Sized) -> npt.NDArray[np.float64]:
    return (np.arange(len(bins)) + 0.5) / len(bins)


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
    """Return the lines of metrics.jsonl; a half written or damaged one is left out."""
    lines = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            lines.append(json.loads(line))
    return [line for line in lines if not misfit(line, {"step": int, "classification": float, "box": float})]


def _canvas(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def _line(ax: Axes, loss: str, x: Sequence[float], curves: list[list[float]]) -> None:
    mean = np.mean(curves, axis=0)
    ax.plot(x, mean, color=COLOURS[loss], label=NAMES[loss])
    if len(curves) > 1:
        ax.fill_between(x, np.min(curves, axis=0), np.max(curves, axis=0), color=COLOURS[loss], alpha=0.2)
