"""The claims as a figure."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drrepro.report.claim import Claim, Part
from drrepro.report.style import COLOURS

ROW = 0.32  # inches


def claim_intervals(claims: list[Claim]) -> Figure | None:
    """Return ours with its 95% interval, the paper's number, and the bounds, a row for each AP of the claims."""
    rows = [(claim, part.shown()) for claim in claims for part in claim.parts if part.is_ap and part.cell.n]
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 1.2 + ROW * len(rows)), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right", "left"]].set_visible(False)
    for y, (_, part) in enumerate(rows):
        _interval(ax, y, part)
    ends = [v for _, p in rows for v in (p.cell.low, p.cell.high, p.cell.value, p.cell.published, 0.0)]
    known = [v for v in ends if v is not None and not np.isnan(v)]
    room = 0.05 * (max(known) - min(known) + 1)
    ax.set(xlim=(min(known) - room, max(known) + room), ylim=(len(rows) - 0.5, -0.5), xlabel="AP")
    ax.set_yticks(range(len(rows)), [f"{claim.data}: {part.what}, {part.bounds}" for claim, part in rows])
    ax.tick_params(axis="y", length=0)
    handles, labels = ax.get_legend_handles_labels()
    own = dict(zip(labels, handles, strict=True))
    figure.legend(own.values(), own.keys(), loc="outside upper right", ncols=len(own), frameon=False)
    return figure


def _interval(ax: Axes, y: int, part: Part) -> None:
    cell = part.cell
    ink = matplotlib.rcParams["text.color"]
    least, most = max(part.least, -1e3), min(part.most, 1e3)
    ax.barh(y, most - least, left=least, height=0.8, color=COLOURS[1], alpha=0.15, linewidth=0, label="to hold")
    if not np.isnan(cell.low):
        ax.plot([cell.low, cell.high], [y, y], color=ink, linewidth=2, solid_capstyle="butt", label="95% interval")
    ax.plot(cell.value, y, "o", color=ink, markersize=5, label="ours")
    if cell.published is not None:
        ax.plot(cell.published, y, "D", color=COLOURS[0], markersize=5, label="paper")
