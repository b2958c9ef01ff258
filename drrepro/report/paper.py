"""The published numbers, and the rows that they stand in."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from drrepro.errors import UsageError
from drrepro.experiments.plan import KINDS, Plan

DATA = {1: "COCO val2017", 2: "COCO test-dev", 3: "VOC2007 test"}  # by table
SETS = {1: "coco2017", 2: "coco2017_testdev", 3: "voc2007"}  # our names of these
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SCALES = ("400", "500", "600", "700", "800")


def beside(plan: Plan) -> Plan:
    """Return the plan with the data set of the paper whose numbers are to stand beside it, if it stands for none."""
    number = {kind: number for number, kind in KINDS.items()}.get(plan.kind)
    return plan if plan.paper or number is None else replace(plan, paper=SETS[number])


@cache
def paper_numbers() -> pd.DataFrame:
    """Return the published numbers, indexed by table, loss and setting; per cent."""
    for path in (Path(__file__).parent / "paper.csv", Path(__file__).parents[2] / "results" / "paper.csv"):
        if path.is_file():
            return pd.read_csv(path, dtype={"setting": str}).set_index(["table", "loss", "setting"])
    raise UsageError("results/paper.csv: the published numbers are missing; install drrepro again")
