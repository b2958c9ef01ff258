"""How many seeds a difference needs to be seen, by the spread in the runs that there are."""

import pandas as pd

from drrepro.errors import UsageError
from drrepro.report.cells import mean_of
from drrepro.report.decision import ALPHA, MOST_SEEDS, detectable, seeds_for
from drrepro.report.evidence import Evidence
from drrepro.text import percent


def seeds_needed(found: list[Evidence], difference: float) -> pd.DataFrame:
    """Return for each setting of each study what its seeds see, and how many see ``difference``, AP in per cent.

    Each setting is a part of a claim on all of them, so it is decided at ALPHA over their number. Raises UsageError
    where no setting has two seeds of both arms, since the spread is not known then.
    """
    rows = []
    for evidence in found:
        study = evidence.study
        for candidate in study.candidates:
            alpha = ALPHA / max(1, len(study.settings))
            for setting in study.settings:
                cell = mean_of(list(evidence.gains(candidate, setting).values()))
                if cell.n < 2:
                    continue
                needed = seeds_for(cell, difference / 100, alpha)
                rows.append(
                    {
                        "study": study.title,
                        "difference": " - ".join(study.short(candidate)) + f" at {setting}",
                        "sd": percent(cell.sd),
                        "seeds": cell.n,
                        "sees": percent(detectable(cell, alpha)),
                        f"seeds for {difference:g} AP": f"more than {MOST_SEEDS}" if needed is None else str(needed),
                    }
                )
    if not rows:
        raise UsageError("--detect: no setting here has two seeds of both arms; run seed=0,1 of it first")
    return pd.DataFrame(rows)
