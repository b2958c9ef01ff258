"""What was measured for a plan, and how sure it is: spread over seeds, resampled test images.

A measurement is an array: first the number itself, then what it is on each resampled set of test images, where the
run kept its matches. All runs share the draws, so a difference of two measurements is a paired one.
"""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from drrepro.errors import RunError
from drrepro.evaluation.bootstrap import RESAMPLES, draw_counts, interval, resampled_ap
from drrepro.experiments.plan import Plan
from drrepro.experiments.records import MATCHES, Record, metrics_at, read_matches, read_record
from drrepro.files import atomic_write

Floats = npt.NDArray[np.float64]

TABLES = ("thresholds", "scales", "datasets")  # the kinds of plans whose runs are resampled
LOSSES = ("focal", "dr")
SEED = 0  # of the draws
PER_RESAMPLE = 100  # draws of Student's t with each resample
CACHE = "bootstrap.npz"
CACHE_VERSION = 1  # to be raised when the bootstrap changes


@dataclass(frozen=True)
class Estimate:
    """The mean over n seeds, their standard deviation, and the 95% interval of the mean; NaN where unknown."""

    value: float
    sd: float
    n: int
    low: float
    high: float
    basis: str  # what the interval is of: images | seeds | images and seeds, or empty


def estimate(measured: list[Floats]) -> Estimate:
    """Return what the measurements of n seeds say of their mean.

    One seed: the percentile interval over resampled images. Several: over resamples of the mean over the seeds, each
    with Student's t (n - 1 degrees of freedom) times sd / sqrt(n) added; without resamples that term alone.
    """
    nan, n = float("nan"), len(measured)
    if not measured:
        return Estimate(nan, nan, 0, nan, nan, "")
    rows = aligned(measured)
    mean, sd = rows.mean(axis=0), float(rows[:, 0].std(ddof=1)) if n > 1 else nan
    resamples = mean[1:] if len(mean) > 1 else np.full(RESAMPLES, mean[0])
    basis = ["images"] * (len(mean) > 1) + ["seeds"] * (n > 1)
    if n > 1:
        t = np.random.default_rng(SEED).standard_t(n - 1, (PER_RESAMPLE, len(resamples)))
        resamples = (resamples + t * sd / np.sqrt(n)).ravel()
    low, high = interval(resamples) if basis else (nan, nan)
    return Estimate(float(mean[0]), sd, n, low, high, " and ".join(basis))


def aligned(measured: list[Floats]) -> Floats:
    """Return measurements as rows: with their resamples if all have some, else the numbers alone."""
    length = min(len(one) for one in measured)
    return np.stack([one[:length] for one in measured])


@dataclass(frozen=True)
class Evidence:
    """The records of a plan, and by run id and score threshold the AP of each resample, per cent."""

    plan: Plan
    records: dict[str, Record]
    resampled: dict[str, dict[float, Floats]]

    def of(self, loss: str, setting: str | None = None) -> dict[int, Record]:
        """Return the records of a loss by seed, at a setting of the table or, where there is none, all."""
        cells = [c for c in self.plan.cells if c.loss == loss and setting in (None, c.setting)]
        return {c.seed: self.records[c.run_id] for c in cells if c.run_id in self.records}

    def measured(
        self, loss: str, setting: str | None = None, threshold: float | None = None, metric: str = "AP"
    ) -> dict[int, Floats]:
        """Return measurements by seed, per cent, at a score threshold or each run's own; only AP has resamples."""
        found = {}
        for seed, record in self.of(loss, setting).items():
            at = own_threshold(record) if threshold is None else threshold
            value = (metrics_at(record, at) or {}).get(metric)
            if value is not None:
                own = self.resampled.get(record["id"], {}) if metric == "AP" else {}
                found[seed] = np.append(100 * value, own.get(at, ()))
        return found

    def gains(self, setting: str | None = None, threshold: float | None = None) -> dict[int, Floats]:
        """Return DR's AP minus focal's by seed, where both were run; resampled only if the test images are the same."""
        dr, focal = (self.measured(loss, setting, threshold) for loss in ("dr", "focal"))
        tested = {seed: {_tested(self.of(loss, setting)[seed]) for loss in LOSSES} for seed in dr.keys() & focal.keys()}
        pairs = {seed: aligned([dr[seed], focal[seed]]) for seed in sorted(tested)}
        return {seed: (one - other)[: None if len(tested[seed]) == 1 else 1] for seed, (one, other) in pairs.items()}


def gather(
    plans: list[Plan], runs: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Evidence]:
    """Return the evidence on each plan; ``progress`` gets (runs resampled, all).

    Runs of the numbered tables are resampled; what comes out is kept beside their matches, as bootstrap.npz. Raises
    UsageError for a damaged record or matches; a run without matches has no resamples.
    """
    records = [records_of(plan, runs) for plan in plans]
    tabled = {k: r for plan, own in zip(plans, records, strict=True) if plan.kind in TABLES for k, r in own.items()}
    resampled = {}
    for done, (run_id, record) in enumerate(tabled.items(), start=1):
        resampled[run_id] = _resample(runs / run_id, record)
        progress(done, len(tabled))
    return [Evidence(plan, own, resampled) for plan, own in zip(plans, records, strict=True)]


def numbered(found: list[Evidence]) -> list[Evidence]:
    """Return the evidence on Tables 1-3 alone, in their order."""
    own = [evidence for evidence in found if evidence.plan.kind in TABLES]
    return sorted(own, key=lambda evidence: (TABLES.index(evidence.plan.kind), evidence.plan.data))


def records_of(plan: Plan, runs: Path) -> dict[str, Record]:
    """Return the records that exist, by run id."""
    found = ((cell.run_id, read_record(runs / cell.run_id)) for cell in plan.cells)
    return {run_id: record for run_id, record in found if record is not None}


def own_threshold(record: Record) -> float:
    """Return the score threshold that belongs to the run's loss."""
    return float(record["config"]["evaluation"]["score_threshold"])


def _tested(record: Record) -> str | None:
    sha256: str | None = record.get("data", {}).get("sha256")
    return sha256


def _resample(directory: Path, record: Record) -> dict[float, Floats]:
    """Return AP of each resample, per cent, by score threshold, from the cache if it is of these matches."""
    path = directory / MATCHES
    if not path.is_file():
        return {}
    own = record["config"]["evaluation"]["nms_iou"]
    thresholds = sorted({row["score_threshold"] for row in record["metrics"] if row["nms_iou"] == own})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    key = hashlib.sha256(repr((CACHE_VERSION, sha256, thresholds, RESAMPLES, SEED)).encode()).hexdigest()
    ap = _read_cache(directory / CACHE, key, (len(thresholds), RESAMPLES))
    if ap is None:
        matches = read_matches(path)
        ap = 100 * resampled_ap(matches, thresholds, draw_counts(matches.positives.shape[2], RESAMPLES, SEED))
        with contextlib.suppress(RunError):  # a folder that cannot be written: resampled again the next time
            _write_cache(directory / CACHE, key, ap)
    return dict(zip(thresholds, ap, strict=True))


def _read_cache(path: Path, key: str, shape: tuple[int, int]) -> Floats | None:
    """Return what was kept under ``key``; None where it was not, or is damaged: it is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            ap: Floats = kept["ap"]
            return ap if str(kept["key"]) == key and ap.shape == shape and ap.dtype == np.float64 else None
    except Exception:  # numpy and zipfile raise whatever the damaged bytes make them raise
        return None


def _write_cache(path: Path, key: str, ap: Floats) -> None:
    atomic_write(path, lambda file: np.savez_compressed(file, key=np.array(key), ap=ap))
