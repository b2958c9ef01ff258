"""Figures of a study along its axis: AP, gain, and what each change of a recipe adds."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drrepro.report.cells import Cell, aligned, estimate
from drrepro.report.evidence import Evidence
from drrepro.report.style import Style
from drrepro.runs.records import Record
from drrepro.studies.study import RECIPE, split_metric
from drrepro.text import percent

AXES = {  # what the axis of a study is called
    "input.scale": "input scale: short side in training and test, px",
    "schedule.steps": "training steps",
}
LOGARITHMIC = ("schedule.steps",)


def records_by_arm(evidence: Evidence) -> dict[str, list[Record]]:
    """Return the records of each arm that has some, in the order of the plan, each once; of recipes the first alone."""
    study, points = evidence.study, evidence.plan.points
    if study.axis == RECIPE:
        points = [point for point in points if point.setting == next(iter(study.settings))]
    names = {arm: [p.run_id for p in points if p.arm == arm] for arm in study.arms}
    unique = {arm: [name for name in dict.fromkeys(ids) if name in evidence.records] for arm, ids in names.items()}
    return {arm: [evidence.records[name] for name in ids] for arm, ids in unique.items() if ids}


def ap_against_axis(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """AP at each run's own threshold against the value of the study's axis: mean and range over seeds."""
    figure, axes = canvas(1, 1, (5.6, 3.8))
    ax, values = axes[0][0], _values(evidence)
    for arm in evidence.study.arms:
        found = {v: [percent(float(own[0])) for own in evidence.measured(arm, s).values()] for s, v in values.items()}
        places = sorted(value for value, seeds in found.items() if seeds)
        if places:
            means = [float(np.mean(found[place])) for place in places]
            ax.plot(places, means, "o-", color=style.colour(arm), label=style.name(arm))
            low, high = ([float(end(found[place])) for place in places] for end in (np.min, np.max))
            ax.fill_between(places, low, high, color=style.colour(arm), alpha=0.2, linewidth=0)
    _finish(ax, evidence, values)
    ax.set(ylabel="AP", ylim=(0, None))
    ax.legend(frameon=False)
    return figure


def gain_against_axis(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """Gain in AP of each candidate over the baseline against the study's axis, with its 95% interval."""
    figure, axes = canvas(1, 1, (5.6, 3.8))
    ax, values = axes[0][0], _values(evidence)
    for candidate in evidence.study.candidates:
        gains = {s: estimate(list(evidence.gains(candidate, s).values())).percent() for s in values}
        known = [setting for setting in values if gains[setting].n]
        if known:
            places = [values[setting] for setting in known]
            heights = [gains[setting].value for setting in known]
            name = f"{style.name(candidate)} - {style.name(evidence.study.baseline)}"
            bars, colour = _bars([gains[setting] for setting in known]), style.colour(candidate)
            ax.errorbar(places, heights, bars, fmt="o-", color=colour, label=name)
    ax.axhline(0, color=matplotlib.rcParams["text.color"], linewidth=0.8)
    _finish(ax, evidence, values)
    ax.set(ylabel="gain in AP")
    ax.legend(frameon=False)
    return figure


def overfitting(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """What AP gains from the lowest to the highest threshold against epochs, on the images tested and trained on.

    A detector that is sure of what it finds loses nothing; the thresholds are those of the study's metrics.
    """
    thresholds = {split_metric(metric)[1] or 0.0: metric for metric in evidence.study.metrics if " at " in metric}
    lowest, highest = (thresholds[threshold] for threshold in sorted(thresholds))
    figure, axes = canvas(1, 1, (5.6, 3.8))
    ax, drawn = axes[0][0], False
    for arm in evidence.study.arms:
        points: dict[str, list[tuple[float, Cell]]] = {}
        for setting in evidence.study.settings:
            low, high = (evidence.measured(arm, setting, metric) for metric in (lowest, highest))
            falls = [np.subtract(*aligned([high[seed], low[seed]])) for seed in sorted(high.keys() & low.keys())]
            if falls:
                record = next(iter(evidence.of(arm, setting).values()))
                split = record["config"]["evaluation"]["split"]
                points.setdefault(split, []).append((_epochs(evidence, record), estimate(falls).percent()))
        for split, own in points.items():
            places, cells = zip(*sorted(own, key=lambda point: point[0]), strict=True)
            line, name = ("-", "--")[split == "train"], f"{style.name(arm)}, {split} images"
            heights, bars = [cell.value for cell in cells], _bars(list(cells))
            ax.errorbar(places, heights, bars, marker="o", linestyle=line, color=style.colour(arm), label=name)
            drawn = True
    ax.axhline(0, color=matplotlib.rcParams["text.color"], linewidth=0.8)
    ax.set(xlabel="epochs", ylabel=f"{highest} - {lowest}")
    ax.legend(frameon=False)
    return figure if drawn else None


def _epochs(evidence: Evidence, record: Record) -> float:
    """Return how often each image was trained on, by this run or by the one whose weights it evaluates again.

    NaN, which is not drawn, where that one is not of the plan.
    """
    source = str(record["config"].get("weights")).removeprefix("run:")
    trained = record if record["config"]["schedule"]["steps"] else evidence.records.get(source, record)
    schedule, images = trained["config"]["schedule"], trained["data"]["train_images"]
    return schedule["steps"] * schedule["images_per_step"] / images if images else float("nan")


def waterfall(evidence: Evidence, style: Style, runs: Path) -> Figure | None:
    """What each setting adds to the AP of the last arm, from the baseline on, with the 95% interval of what it adds."""
    changes = steps(evidence)
    if any(not cell.n for _, cell in changes):
        return None
    figure, axes = canvas(1, 1, (6.4, 3.8))
    ax, height = axes[0][0], changes[0][1].value
    ink = matplotlib.rcParams["text.color"]
    ends = [style.colour(evidence.study.baseline), style.colour(list(evidence.study.arms)[-1])]
    ax.bar(0, height, color=ends[0], alpha=0.8)
    for x, (_, cell) in enumerate(changes[1:], start=1):
        ax.bar(x, cell.value, bottom=height, color=ends[cell.value > 0], alpha=0.5)
        ax.errorbar(x, height + cell.value, _bars([cell]), color=ink, capsize=3)
        ax.annotate(f"{cell.value:+.1f}", (x, max(height, height + cell.high)), ha="center", va="bottom")
        height += cell.value
    ax.bar(len(changes), height, color=ends[1], alpha=0.8)
    last = style.name(list(evidence.study.arms)[-1])
    names = [name.replace(" ", "\n") for name in (*(name for name, _ in changes), last)]
    ax.set_xticks(range(len(changes) + 1), names)
    ax.set(ylabel="AP")
    return figure


def steps(evidence: Evidence) -> list[tuple[str, Cell]]:
    """Return the baseline's AP and what each setting of the last arm adds to the one before, per cent and by seed."""
    study = evidence.study
    before = evidence.measured(study.baseline, next(iter(study.settings)))
    changes = [(study.arms[study.baseline].short, estimate(list(before.values())).percent())]
    for setting in study.settings:
        after = evidence.measured(list(study.arms)[-1], setting)
        pairs = [aligned([after[seed], before[seed]]) for seed in sorted(after.keys() & before.keys())]
        changes.append((setting, estimate([one - other for one, other in pairs]).percent()))
        before = after
    return changes


def canvas(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[list[Axes]]]:
    """Return an empty figure and its axes, in the one style of all."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes.tolist()


def _values(evidence: Evidence) -> dict[str, float]:
    """Return by setting the value of the axis, where some run has it."""
    return {p.setting: p.value for p in evidence.plan.points if p.value is not None}


def _bars(cells: list[Cell]) -> Any:
    """Return how far the intervals reach below and above the values, nothing where there is none."""
    below = [cell.value - cell.low for cell in cells]
    above = [cell.high - cell.value for cell in cells]
    return np.nan_to_num(np.maximum([below, above], 0))


def _finish(ax: Axes, evidence: Evidence, values: dict[str, float]) -> None:
    axis = evidence.study.axis
    ax.set_xlabel(AXES.get(axis, axis))
    if axis in LOGARITHMIC:
        ax.set_xscale("log")
        ax.set_xticks(list(values.values()), [f"{value:,g}" for value in values.values()])
        ax.minorticks_off()
