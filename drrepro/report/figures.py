"""Figure 1 and the curves behind the tables, drawn from run records."""

from collections.abc import Callable, Sized
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drrepro.errors import UsageError
from drrepro.files import atomic_write, write_png
from drrepro.report.axis_figures import (
    ap_against_axis,
    canvas,
    gain_against_axis,
    overfitting,
    records_by_arm,
    waterfall,
)
from drrepro.report.evidence import Evidence, gather, of_studies
from drrepro.report.separation import matcher_of, shared_matchers
from drrepro.report.style import BACKGROUND, Style, style_of
from drrepro.runs.folder import RunFolder
from drrepro.runs.records import Density, Record, read_metrics
from drrepro.studies.plan import Plan
from drrepro.text import percent

matplotlib.use("Agg")

SMOOTHING = 5  # bins of the score densities
WIDE = 4  # columns of Figure 1, more go below; so many curves have their legend outside


def draw_figures(
    plans: list[Plan], runs: Path, results: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Draw what the plans' records allow under results/<data>/; return the paths. ``progress``: see `gather`."""
    paths: list[Path] = []
    for evidence in of_studies(gather(plans, runs, progress)):
        for name, figure in plan_figures(evidence, runs).items():
            path = results / evidence.plan.data / f"{name}.png"
            if path in paths:  # another plan of the same runs
                continue
            paths.append(write_png(figure, path))
    return paths


def plan_figures(evidence: Evidence, runs: Path) -> dict[str, Figure]:
    """Return those of the study's figures that the records allow, by name. Raises UsageError for an unknown name."""
    study = evidence.study
    figures = {}
    for name in study.figures if evidence.records else []:
        if name not in FIGURES:
            raise UsageError(f"figure {name} of study {study.name}: must be one of {', '.join(FIGURES)}")
        figure = FIGURES[name](evidence, Style(study.arms), runs)
        if figure is not None:
            figures[name if study.number else f"{study.name}-{name}"] = figure
    return figures


def draw_figure1(records: list[Record], path: Path) -> list[Path]:
    """Draw Figure 1 of any runs beside each other as ``path``.png and .svg; return both."""
    for record in records:
        if not record["densities"]:
            raise UsageError(f"{record['id']}: a secret test split, so nobody here knows which scores are foreground's")
    losses = [record["config"]["loss"]["name"] for record in records]
    figure = score_densities(list(zip(losses, records, strict=True)), style_of(losses))
    paths = [path.with_name(path.name.removesuffix(".png").removesuffix(".svg") + end) for end in (".png", ".svg")]
    write_png(figure, paths[0])
    with matplotlib.rc_context({"svg.hashsalt": "figure1"}):  # the same figure, the same file
        atomic_write(paths[1], lambda file: figure.savefig(file, format="svg", metadata={"Date": None}))
    return paths


def score_densities(records: list[tuple[str, Record]], style: Style) -> Figure:
    """Figure 1, a column for each (arm, record): the densities of foreground and background scores, and their means.

    Row (b) shows the background's divided by 10. All of (a) share their axes, and all of (b). Runs of one arm are told
    apart by id.
    The scores are labelled by the same matchers in all columns, each where there are several; by those that the runs
    trained with where they have none in common.
    """
    columns, strips = min(WIDE, len(records)), -(-len(records) // WIDE)
    figure, axes = canvas(2 * strips, columns, (4.2 * columns, 6.0 * strips), sharex=True)
    arms = [arm for arm, _ in records]
    shared = shared_matchers([record for _, record in records])
    for place, (arm, record) in enumerate(records):
        strip, column = divmod(place, columns)
        by_matcher = {matcher_of(density): density for density in record["densities"]}
        own = [by_matcher[matcher] for matcher in shared] or record["densities"][:1]
        title = style.name(arm) if arms.count(arm) == 1 else f"{style.name(arm)}\n{record['id']}"
        for row, (part, decay) in enumerate((("(a)", 1), ("(b)", 10))):
            ax = axes[2 * strip + row][column]
            _densities(ax, own, decay, style.colour(arm))
            ax.set_title(f"{part} {title}")
    _share(axes)
    for ax in (ax for row in axes for ax in row if not ax.has_data()):
        ax.set_axis_off()
    return figure


def _share(axes: list[list[Axes]]) -> None:
    """Give all of (a), every other row, one scale, and all of (b); now that all is drawn, since it ends the scaling."""
    for part in (axes[::2], axes[1::2]):
        for ax in (ax for row in part for ax in row):
            if ax is not part[0][0]:
                ax.sharey(part[0][0])
        part[0][0].autoscale(axis="y")
        part[0][0].set(ylim=(0, None), xlim=(0, 1))
        for row in part:
            row[0].set(ylabel="density")
            for ax in row[1:]:
                ax.tick_params(labelleft=False)
    for ax in axes[-1]:
        ax.set(xlabel="score")


def _densities(ax: Axes, own: list[Density], decay: int, colour: str) -> None:
    # The few thousand foreground scores are smoothed over neighbouring bins, the millions of the others are not.
    for density, line in zip(own, cycle(("-", "--", ":"))):
        label = "background" if decay == 1 else f"background / {decay}"
        label += f", IoU < {density['bg_iou']:g}"
        background = _density(density["background"]) / decay
        _draw(ax, background, f"{label}, mean", mean_score(density["background"]), BACKGROUND, line)
    foreground = np.convolve(_density(own[0]["foreground"]), np.ones(SMOOTHING) / SMOOTHING, "same")
    _draw(ax, foreground, "foreground, mean", mean_score(own[0]["foreground"]), colour)
    ax.legend(edgecolor="none", framealpha=0.85)


def mean_score(counts: list[int]) -> float:
    """Return the mean of a histogram over scores from 0 to 1, NaN for an empty one."""
    return float(np.dot(counts, _centers(counts)) / np.sum(counts)) if any(counts) else float("nan")


def _draw(ax: Axes, density: npt.NDArray[np.float64], label: str, mean: float, colour: str, line: str = "-") -> None:
    ax.plot(_centers(density), density, color=colour, linestyle=line, label=f"{label} {mean:.2f}")
    if line == "-":
        ax.fill_between(_centers(density), density, color=colour, alpha=0.25)
    ax.axvline(mean, color=colour, linestyle="--", linewidth=1)


def _centers(bins: Sized) -> npt.NDArray[np.float64]:
    return (np.arange(len(bins)) + 0.5) / len(bins)


def _density(counts: list[int]) -> npt.NDArray[np.float64]:
    """Return a histogram over scores from 0 to 1 as a density, which integrates to one."""
    total: npt.NDArray[np.float64] = np.array(counts, dtype=np.float64)
    total *= len(total) / max(1.0, total.sum())
    return total


def figure1(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """Figure 1 of the first seed of each arm; none of a secret test split."""
    records = records_by_arm(evidence)
    first = [(arm, record) for arm, seeds in records.items() for record in seeds[:1]]
    known = all(record["densities"] for seeds in records.values() for record in seeds)
    return score_densities(first, style) if known else None


def ap_against_threshold(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """Table 1 as curves, at every hundredth; dots are the thresholds that were configured."""
    records = records_by_arm(evidence)
    if not all(record["curve"] for seeds in records.values() for record in seeds):
        return None  # of a secret test split
    figure, axes = canvas(1, 1, (5.6, 3.8))
    ax = axes[0][0]
    for arm, seeds in records.items():
        curves = [_curve(record) for record in seeds]
        shared = sorted(set.intersection(*(set(curve) for curve in curves)))
        lines = [[percent(curve[t]) for t in shared] for curve in curves]
        ax.plot(shared, np.mean(lines, axis=0), color=style.colour(arm), label=style.name(arm))
        if len(lines) > 1:
            low, high = np.min(lines, axis=0), np.max(lines, axis=0)
            ax.fill_between(shared, low, high, color=style.colour(arm), alpha=0.2)
        marks = [t for t in seeds[0]["config"]["evaluation"]["score_thresholds"] if t in shared]
        means = [percent(float(np.mean([curve[t] for curve in curves]))) for t in marks]
        ax.plot(marks, means, "o", color=style.colour(arm), markersize=4)
    ax.set(xlabel="score threshold", ylabel="AP", xlim=(0, 1), ylim=(0, None))
    if len(records) < WIDE:
        ax.legend(frameon=False)
    else:  # which would hide curves
        figure.set_figwidth(7.6)
        figure.legend(frameon=False, loc="outside right upper")
    return figure


def _curve(record: Record) -> dict[float, float]:
    """Return AP by score threshold."""
    return {p["score_threshold"]: p["AP"] for p in record["curve"] if p["AP"] is not None and p["score_threshold"]}


def training_curves(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """Classification and box loss of the first seed of each arm, as logged."""
    figure, axes = canvas(1, 2, (8.4, 3.6))
    for arm, seeds in records_by_arm(evidence).items():
        lines = read_metrics(RunFolder(runs / seeds[0]["id"]).metrics)
        for ax, part in zip(axes[0], ("classification", "box"), strict=True):
            steps, values = [line["step"] for line in lines], [line[part] for line in lines]
            ax.plot(steps, values, color=style.colour(arm), label=style.name(arm))
            ax.set(xlabel="step", ylabel=f"{part} loss")
    for ax in axes[0]:
        ax.set_ylim(0, None)
        ax.legend(frameon=False)
    return figure


FIGURES: dict[str, Callable[[Evidence, Style, Path], Figure | None]] = {
    "figure1": figure1,
    "ap_threshold": ap_against_threshold,
    "ap_scale": ap_against_axis,
    "ap_axis": ap_against_axis,
    "gain_axis": gain_against_axis,
    "overfitting": overfitting,
    "waterfall": waterfall,
    "training": training_curves,
}
