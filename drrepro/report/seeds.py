"""How many seeds a difference needs to be seen, by the spread in the runs that there are."""

import pandas as pd

from drrepro.errors import UsageError
from drrepro.report.cells import mean_of
from drrepro.report.decision import ALPHA, detectable, what_decides
from drrepro.report.evidence import Evidence
from drrepro.text import percent

AT_EACH_SETTING = ("scale", "above")  # claims of a gain at every setting: each is a part


def seeds_needed(found: list[Evidence], difference: float) -> pd.DataFrame:
    """Return for each setting of each study what its seeds see, and how many see ``difference``, AP in per cent.

    Where the study claims a gain at every setting, it is decided at ALPHA over their number. Raises UsageError where no
    setting has two seeds of both arms, since the spread is not known then.
    """
    rows = []
    for evidence in found:
        study = evidence.study
        for candidate in study.candidates:
            parts = len(study.settings) if set(study.claims) & set(AT_EACH_SETTING) else 1
            for setting in study.settings:
                cell = mean_of(list(evidence.gains(candidate, setting).values()))
                if cell.n < 2:
                    continue
                rows.append(
                    {
                        "study": study.title,
                        "difference": " - ".join(study.short(candidate)) + f" at {setting}",
                        "sd": percent(cell.sd),
                        "seeds": cell.n,
                        "parts": parts,
                        "sees": percent(detectable(cell, ALPHA / parts)),
                        f"for {difference:g} AP": what_decides(cell, difference / 100, ALPHA / parts),
                    }
                )
    if not rows:
        raise UsageError("--detect: no setting here has two seeds of both arms; run seed=0,1 of it first")
    return pd.DataFrame(rows)
