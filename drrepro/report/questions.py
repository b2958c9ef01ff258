"""The sections of the page that answer a referee's questions: figures, tables and claims by question."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from drrepro.report.calibration import SAME
from drrepro.report.claim import NOT_RUN, Claim
from drrepro.report.claim_text import finding
from drrepro.report.evidence import Evidence
from drrepro.report.written import CALIBRATION

ALIKE = "Are the densities compared alike?"
ALIKE_NOTE = (
    "Which anchors are background is the matcher's choice, and each loss trains with its own: focal loss ignores those "
    "of IoU 0.4 to 0.5, DR loss counts them as background. So one matcher labels the scores of both losses, and each "
    "of the two is asked. Intervals are over test images and seeds."
)
SURE_NOTE = (
    "What the 95% intervals cover in simulation, and how often a verdict is false on runs of one recipe that differ in "
    "their seed alone. What each undecided part could have seen, and the seeds that would decide it, stands beside it "
    "under Claims."
)
UNASKED = "Not asked yet: drrepro bench verdicts --results {results}, then this page again."


@dataclass
class Question:
    """A section: what it asks, and what answers it. Figures are (data, name, caption, SVG)."""

    id: str
    title: str
    notes: list[str] = field(default_factory=list)
    figures: list[tuple[str, str, str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    frame: pd.DataFrame | None = None


def answered(
    found: list[Evidence],
    claims: list[Claim],
    tables: list[dict[str, Any]],
    figures: dict[str, dict[str, tuple[str, Any]]],
    results: Path,
) -> list[Question]:
    """Return the questions that the evidence answers; the figures that answer one are taken out of ``figures``."""
    questions: dict[str, Question] = {}
    for evidence, table in zip(found, tables, strict=True):
        study, data = evidence.study, evidence.plan.data
        if not study.question or not evidence.records:
            continue
        own = questions.setdefault(study.question, Question(f"question-{study.name}", study.question))
        own.tables.append(table)
        own.notes += [finding(claim) for claim in claims if claim.place == study.title and claim.data == data]
        names = [f"{study.name}-{figure}" for figure in study.figures]
        own.figures += [(data, name, *figures[data].pop(name)) for name in names if name in figures.get(data, {})]
        if study.name == SAME:
            own.frame = _calibration(results)
            own.notes.append(SURE_NOTE if own.frame is not None else UNASKED.format(results=results))
    asked = [claim for claim in claims if claim.name == "separation" and claim.verdict != NOT_RUN]
    return ([_alike(asked, figures)] if asked else []) + list(questions.values())


def _alike(asked: list[Claim], figures: dict[str, dict[str, tuple[str, Any]]]) -> Question:
    """Return the question of Figure 1."""
    notes = [ALIKE_NOTE, *dict.fromkeys(claim.sentence for claim in asked)]
    notes += [f"On {claim.data}: {claim.verdict}; the numbers stand under Claims." for claim in asked]
    drawn = [(data, "figure1", *own.pop("figure1")) for data, own in figures.items() if "figure1" in own]
    return Question("question-figure1", ALIKE, notes, drawn)


def _calibration(results: Path) -> pd.DataFrame | None:
    """Return what `drrepro bench verdicts` wrote, if it was asked."""
    path = results / f"{CALIBRATION}.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else None
