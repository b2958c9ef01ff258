"""How far verdicts can be trusted: what intervals cover in simulation, what is decided where nothing differs."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from drrepro.errors import UsageError
from drrepro.evaluation.bootstrap import draw_counts
from drrepro.report.cells import Floats, aligned, estimate, images_and_own, mean_of
from drrepro.report.claim import ABOVE_ZERO
from drrepro.report.decision import ALPHA, holm, p_value
from drrepro.report.evidence import Evidence
from drrepro.text import percent

SEEDS = (2, 3, 5, 10)
SIMULATED = 2000  # differences, for each number of seeds
PARTS = 5  # of a simulated claim, as many as Table 2 has
GROUPS = 2000  # pairs of groups of the same recipe's runs, for each number of seeds
SAME = "same"  # the study of runs that differ in their seed alone
IMAGES, DRAWN = 100, 400  # of a simulated test set, and its resamples
Spread = tuple[float, float, float]  # standard deviations: of seeds, of images for all seeds, of images for each seed
CASES: dict[str, Spread | None] = {  # of simulation; none: that of the runs at hand
    "spread as in the runs": None,
    "images vary as much as seeds": (1.0, 1.0, 1.0),
}


def calibrate(found: list[Evidence], progress: Callable[[int, int], None]) -> pd.DataFrame:
    """Return a row for each question and number of seeds: of how many, and the rate in per cent.

    What is simulated, and so covered, are differences, whose statistic is a mean over images.

    Raises UsageError where the evidence has no differences with several seeds, or no runs of the same recipe.
    """
    runs, measured = _same(found), spread(found)
    groups = [n for n in SEEDS if 2 * n <= len(runs)]
    rows: list[dict[str, object]] = []
    done, total = 0, len(SEEDS) * len(CASES) + len(groups)
    for case, own in CASES.items():
        for n in SEEDS:
            rows += simulated(case, own or measured, n)
            done += 1
            progress(done, total)
    rows.append(_images_alone(runs))
    for n in groups:
        rows += _false(runs, n)
        done += 1
        progress(done, total)
    return pd.DataFrame(rows)


def spread(found: list[Evidence]) -> Spread:
    """Return what differences between arms vary by in the runs at hand, in AP per cent: means over all settings."""
    variances = []
    for gains in _differences(found):
        rows = np.stack(gains)
        images, own = images_and_own(rows[:, 1:] - rows[:, :1])
        variances.append((max(0.0, float(rows[:, 0].var(ddof=1)) - own), images, own))
    if not variances:
        raise UsageError("no differences of several seeds with resamples here; `drrepro sweep scales seed=0,1,2`")
    of_seeds, of_images, of_each = np.sqrt(np.mean(variances, axis=0)).tolist()
    return percent(of_seeds), percent(of_images), percent(of_each)


def _differences(found: list[Evidence]) -> Iterator[list[Floats]]:
    for evidence in found:
        for candidate in evidence.study.candidates if evidence.plan.study else []:
            for setting in evidence.study.settings:
                gains = [gain for gain in evidence.gains(candidate, setting).values() if len(gain) > 1]
                if len(gains) > 1:
                    yield gains


def simulated(case: str, own: Spread, n: int) -> list[dict[str, object]]:
    """Return the coverage of the 95% interval of a difference that is known, and false verdicts of several parts."""
    rng, draws = np.random.default_rng(n), draw_counts(IMAGES, DRAWN) / IMAGES
    p_values = []
    for _ in range(SIMULATED):
        of_seed = rng.normal(0, own[0], (n, 1))
        of_image = rng.normal(0, own[1] * math.sqrt(IMAGES), (1, IMAGES))
        values = of_seed + of_image + rng.normal(0, own[2] * math.sqrt(IMAGES), (n, IMAGES))
        cell = mean_of(list(np.concatenate([values.mean(axis=1, keepdims=True), values @ draws.T], axis=1)))
        p_values.append(p_value(cell, ABOVE_ZERO))
    covered = sum(p > ALPHA for p in p_values)  # 0, the true difference, is within
    claims = [p_values[i : i + PARTS] for i in range(0, SIMULATED, PARTS)]
    any_false = sum(min(holm(parts)) <= ALPHA for parts in claims)
    uncorrected = sum(min(parts) <= ALPHA for parts in claims)
    return [
        _row(f"intervals that cover the true difference, {case}", n, SIMULATED, covered),
        _row(f"claims of {PARTS} parts with a false verdict, {case}", n, len(claims), any_false),
        _row(f"the same without Holm's correction, {case}", n, len(claims), uncorrected),
    ]


def _same(found: list[Evidence]) -> list[Floats]:
    """Return the AP of runs that differ in their seed alone, as measured and resampled."""
    settings = [
        list(evidence.measured(evidence.study.baseline, setting).values())
        for evidence in found
        if evidence.plan.study and evidence.study.name == SAME
        for setting in evidence.study.settings
    ]
    runs = max(settings, key=len, default=[])
    if len(runs) < 4:
        raise UsageError(f"no four runs of the study {SAME} here; `drrepro sweep {SAME} seed=range(20)`")
    return list(aligned(runs))


def _false(runs: list[Floats], n: int) -> list[dict[str, object]]:
    """Return how often n of the runs are said to differ from n others, and how often that "above" holds."""
    rng, differ, above = np.random.default_rng(n), 0, 0
    for _ in range(GROUPS):
        chosen = rng.permutation(len(runs))[: 2 * n]
        cell = mean_of([runs[i] - runs[j] for i, j in zip(chosen[:n], chosen[n:], strict=True)])
        decided = p_value(cell, ABOVE_ZERO) <= ALPHA
        differ += decided
        above += decided and cell.value > 0
    what = f"regroupings of {len(runs)} runs of one recipe"
    rows = [(f"{what}: said to be above or below", differ), (f"{what}: said to be above", above)]
    return [{**_row(name, n, GROUPS, count), "±": ""} for name, count in rows]


def _images_alone(runs: list[Floats]) -> dict[str, object]:
    """Return how often the interval over the images says that two runs of one recipe differ: so it decides nothing."""
    pairs = [runs[i] - runs[j] for j in range(len(runs)) for i in range(j)]
    cells = [estimate([pair]) for pair in pairs]
    apart = sum(cell.low > 0 or cell.high < 0 for cell in cells)
    return {**_row(f"pairs of {len(runs)} runs of one recipe apart by images alone", 1, len(pairs), apart), "±": ""}


def _row(what: str, n: int, of: int, count: int) -> dict[str, object]:
    """Return a rate with twice its standard error, which those that share runs are without."""
    rate = count / of
    error = 2 * math.sqrt(rate * (1 - rate) / of)
    return {"measured": what, "seeds": n, "of": of, "per cent": f"{100 * rate:.1f}", "±": f"{100 * error:.1f}"}
