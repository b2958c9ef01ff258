"""Claims as text, tables and plain data."""

import math
from typing import Any

import pandas as pd

from drrepro.report.cells import interval_text
from drrepro.report.claim import RULE, Claim, Decision, Part
from drrepro.text import number_text, percent


def claim_table(claims: list[Claim]) -> pd.DataFrame:
    """Return the claims as text, a row a part; what is common to the parts of a claim stands in its first row."""
    rows = []
    for claim in claims:
        for i, (part, decision) in enumerate(zip(claim.parts, claim.decisions, strict=True)):
            head = [f"{claim.sentence} ({claim.place})", claim.data, claim.verdict] if i == 0 else [""] * 3
            cell, digits = part.shown().cell, part.digits
            rows.append(
                {
                    **dict(zip(("claim", "data", "verdict"), head, strict=True)),
                    "statistic": part.what,
                    "paper": number_text(cell.published, digits),
                    "should be": part.bounds,
                    "ours": number_text(cell.value, digits),
                    "95%": interval_text(cell, digits),
                    "of": cell.basis,
                    "seeds": str(cell.n),
                    "p": p_text(decision.p),
                    "to decide": to_decide(part, decision),
                }
            )
    return pd.DataFrame(rows)


def p_text(p: float) -> str:
    """Return a p value as text, empty where there is none."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def to_decide(part: Part, decision: Decision) -> str:
    """Return the smallest difference that was to be seen and the seeds that would decide; empty where it is decided."""
    if math.isnan(decision.detectable):
        return decision.needs
    return f"sees {number_text(_seen(part, decision), part.digits)}; {decision.needs}"


def _seen(part: Part, decision: Decision) -> float:
    """Return the difference that was to be seen, as it is shown."""
    return percent(decision.detectable) if part.is_ap else decision.detectable


def finding(claim: Claim) -> str:
    """Return a claim as a line of text."""
    parts = [part_text(part) for part in claim.parts if not math.isnan(part.cell.value)]
    return f"{claim.verdict}: {claim.sentence}" + (f" {'; '.join(parts)}" if parts else "")


def part_text(part: Part) -> str:
    """Return a part as a piece of a line."""
    cell, digits = part.shown().cell, part.digits
    known = f"95% {interval_text(cell, digits)}, " if cell.basis else ""
    paper = "" if cell.published is None else f", paper {number_text(cell.published, digits)}"
    return f"{part.what}: {number_text(cell.value, digits)} ({known}{part.bounds}{paper})"


def as_json(claims: list[Claim]) -> dict[str, Any]:
    """Return the rule and the claims as plain data; numbers that do not exist are null."""
    return {"rule": RULE, "claims": [_as_json(claim) for claim in claims]}


def _as_json(claim: Claim) -> dict[str, Any]:
    parts = [_part_as_json(part, decision) for part, decision in zip(claim.parts, claim.decisions, strict=True)]
    head = {key: getattr(claim, key) for key in ("name", "place", "data", "sentence", "verdict")}
    return {**head, "parts": parts}


def _part_as_json(part: Part, decision: Decision) -> dict[str, Any]:
    cell = part.shown().cell
    numbers = {
        **{key: getattr(cell, key) for key in ("value", "sd", "n", "low", "high", "basis")},
        **{"paper": cell.published, "p": decision.p, "detectable": _seen(part, decision), "to_decide": decision.needs},
    }
    finite = {key: _rounded(value) if isinstance(value, float) else value for key, value in numbers.items()}
    return {"statistic": part.what, **finite, "should_be": part.bounds, "verdict": decision.verdict}


def _rounded(value: float) -> float | None:
    """Round to what does not depend on the CPU; json has no NaN."""
    return round(value, 6) if math.isfinite(value) else None
