"""What was measured for a plan: its records, and the AP of resampled test images; see `drrepro.report.cells`."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drrepro.errors import RunError
from drrepro.evaluation.bootstrap import RESAMPLES, draw_counts, resampled_ap
from drrepro.evaluation.densities import STATISTICS, Matcher, resampled_separation
from drrepro.files import atomic_write
from drrepro.report.cells import SEED, Floats, aligned
from drrepro.runs.folder import RunFolder
from drrepro.runs.kept import read_densities, read_matches
from drrepro.runs.records import Record, metrics_at, read_record
from drrepro.studies.plan import Plan
from drrepro.studies.study import THRESHOLD, Study, split_metric

CACHE_VERSION = 3  # to be raised when the bootstrap changes
Resampled = dict[float, Floats]  # AP of each resample by score threshold
Separated = dict[Matcher, Floats]  # by matcher (3, B): how far the score densities of each resample lie apart


@dataclass(frozen=True)
class Evidence:
    """The records of a plan, and by run id what its resamples have: AP, and the separation of the scores."""

    plan: Plan
    records: dict[str, Record]
    resampled: dict[str, Resampled]
    separated: dict[str, Separated] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The plan's, which must have one."""
        assert self.plan.study is not None
        return self.plan.study

    def of(self, arm: str, setting: str | None = None) -> dict[int, Record]:
        """Return the records of an arm by seed, at a setting of the table or, where there is none, all."""
        points = [p for p in self.plan.points if p.arm == arm and setting in (None, "", p.setting)]
        return {p.seed: self.records[p.run_id] for p in points if p.run_id in self.records}

    def measured(self, arm: str, setting: str | None = None, metric: str = "AP") -> dict[int, Floats]:
        """Return measurements at a setting by seed; only AP has resamples.

        A setting is a score threshold where the study's axis is that, else of runs of their own, which count at each
        run's own threshold, or at that of a metric such as "AP at 0.5".
        """
        metric, threshold = split_metric(metric)
        if self.plan.study and self.study.axis == THRESHOLD and setting is not None:
            threshold, setting = float(setting), None
        found = {}
        for seed, record in self.of(arm, setting).items():
            at = own_threshold(record) if threshold is None else threshold
            value = (metrics_at(record, at) or {}).get(metric)
            if value is not None:
                resamples = self.resampled.get(record["id"], {}) if metric == "AP" else {}
                found[seed] = np.append(value, resamples.get(at, ()))
        return found

    def gains(self, candidate: str, setting: str | None = None) -> dict[int, Floats]:
        """Return a candidate's AP minus the baseline's by seed, where both were run.

        They are resampled only if the test images are the same.
        """
        arms = (candidate, self.study.baseline)
        ours, theirs = (self.measured(arm, setting) for arm in arms)
        where = None if self.study.axis == THRESHOLD else setting
        gains = {}
        for seed in sorted(ours.keys() & theirs.keys()):
            one, other = aligned([ours[seed], theirs[seed]])
            same = same_images([self.of(arm, where)[seed] for arm in arms])
            gains[seed] = (one - other)[: None if same else 1]
        return gains


def gather(
    plans: list[Plan], runs: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Evidence]:
    """Return the evidence on each plan; ``progress`` gets (runs resampled, all).

    Runs of studies are resampled; what comes out is kept beside their matches. Raises UsageError for a damaged record
    or matches; a run without matches has no resamples.
    """
    records = [records_of(plan, runs) for plan in plans]
    tabled = {name: r for plan, own in zip(plans, records, strict=True) if plan.study for name, r in own.items()}
    resampled, separated = {}, {}
    for done, (name, record) in enumerate(tabled.items(), start=1):
        resampled[name] = _resample(RunFolder(runs / name), record)
        separated[name] = _separate(RunFolder(runs / name))
        progress(done, len(tabled))
    return [Evidence(plan, own, resampled, separated) for plan, own in zip(plans, records, strict=True)]


def of_studies(found: list[Evidence]) -> list[Evidence]:
    """Return the evidence on studies alone: the paper's tables in their order, then the others by name."""

    def place(evidence: Evidence) -> tuple[float, str, str]:
        """Return what they are sorted by."""
        return evidence.study.number or float("inf"), evidence.study.name, evidence.plan.data

    return sorted((evidence for evidence in found if evidence.plan.study), key=place)


def records_of(plan: Plan, runs: Path) -> dict[str, Record]:
    """Return the records that exist, by run id."""
    found = ((name, read_record(runs / name)) for name in plan.run_ids)
    return {name: record for name, record in found if record is not None}


def own_threshold(record: Record) -> float:
    """Return the score threshold that belongs to the run's recipe."""
    return float(record["config"]["evaluation"]["score_threshold"])


def same_images(records: list[Record]) -> bool:
    """Return whether runs were tested on the same images, so that their resamples are pairs."""
    return len({record["data"]["sha256"] for record in records}) == 1


def _resample(folder: RunFolder, record: Record) -> Resampled:
    """Return AP of each resample by score threshold, from the cache if it is of these matches."""
    own = record["config"]["evaluation"]["nms_iou"]
    thresholds = sorted({row["score_threshold"] or 0.0 for row in record["metrics"] if row["nms_iou"] == own})

    def make() -> Floats:
        """Return AP of each resample, by threshold."""
        matches = read_matches(folder.matches)
        return resampled_ap(matches, thresholds, draw_counts(matches.positives.shape[2], RESAMPLES, SEED))

    if not folder.matches.is_file():
        return {}
    ap = _cached(folder.resampled, folder.matches, (len(thresholds),), make, thresholds)
    return dict(zip(thresholds, ap, strict=True))


def _separate(folder: RunFolder) -> Separated:
    """Return the separation of the scores of each resample by matcher, from the cache if it is of these densities."""
    if not folder.densities.is_file():
        return {}
    densities = read_densities(folder.densities)

    def make() -> Floats:
        """Return STATISTICS of each resample, by matcher."""
        draws = draw_counts(densities.images, RESAMPLES, SEED)
        return np.stack([resampled_separation(own, draws) for own in densities.counts.values()])

    shape = (len(densities.counts), len(STATISTICS))
    return dict(zip(densities.counts, _cached(folder.separated, folder.densities, shape, make), strict=True))


def _cached(kept: Path, source: Path, shape: tuple[int, ...], make: Callable[[], Floats], *more: object) -> Floats:
    """Return what ``make`` makes of ``source`` and ``more``, (*shape, RESAMPLES), from ``kept`` if that is of them."""
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    key = hashlib.sha256(repr((CACHE_VERSION, sha256, *more, RESAMPLES, SEED)).encode()).hexdigest()
    values = _read_cache(kept, key, (*shape, RESAMPLES))
    if values is None:
        values = make()
        with contextlib.suppress(RunError):  # a folder that cannot be written: made again the next time
            _write_cache(kept, key, values)
    return values


def _read_cache(path: Path, key: str, shape: tuple[int, ...]) -> Floats | None:
    """Return what was kept under ``key``; None where it was not, or is damaged: it is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            values: Floats = kept["values"]
            return values if str(kept["key"]) == key and values.shape == shape and values.dtype == np.float64 else None
    except Exception:  # numpy and zipfile raise whatever the damaged bytes make them raise
        return None


def _write_cache(path: Path, key: str, values: Floats) -> None:
    atomic_write(path, lambda file: np.savez_compressed(file, key=np.array(key), values=values))
