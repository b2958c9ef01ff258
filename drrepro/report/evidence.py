"""What was measured for a plan: its records, and the AP of resampled test images; see `drrepro.report.cells`."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from drrepro.errors import RunError
from drrepro.evaluation.bootstrap import RESAMPLES, draw_counts, resampled_ap
from drrepro.files import atomic_write
from drrepro.report.cells import SEED, Floats, aligned
from drrepro.runs.folder import RunFolder
from drrepro.runs.records import Record, metrics_at, read_matches, read_record
from drrepro.studies.plan import Plan
from drrepro.studies.study import THRESHOLD, Study

CACHE_VERSION = 2  # to be raised when the bootstrap changes
Resampled = dict[float, Floats]  # AP of each resample by score threshold


@dataclass(frozen=True)
class Evidence:
    """The records of a plan, and by run id the AP of its resamples."""

    plan: Plan
    records: dict[str, Record]
    resampled: dict[str, Resampled]

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
        run's own threshold.
        """
        threshold = None
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
            same = len({self.of(arm, where)[seed]["data"]["sha256"] for arm in arms}) == 1
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
    resampled = {}
    for done, (name, record) in enumerate(tabled.items(), start=1):
        resampled[name] = _resample(RunFolder(runs / name), record)
        progress(done, len(tabled))
    return [Evidence(plan, own, resampled) for plan, own in zip(plans, records, strict=True)]


def of_studies(found: list[Evidence]) -> list[Evidence]:
    """Return the evidence on studies alone: the paper's tables in their order, then the others by name."""

    def place(evidence: Evidence) -> tuple[float, str, str]:
        return evidence.study.number or float("inf"), evidence.study.name, evidence.plan.data

    return sorted((evidence for evidence in found if evidence.plan.study), key=place)


def records_of(plan: Plan, runs: Path) -> dict[str, Record]:
    """Return the records that exist, by run id."""
    found = ((name, read_record(runs / name)) for name in plan.run_ids)
    return {name: record for name, record in found if record is not None}


def own_threshold(record: Record) -> float:
    """Return the score threshold that belongs to the run's recipe."""
    return float(record["config"]["evaluation"]["score_threshold"])


def _resample(folder: RunFolder, record: Record) -> Resampled:
    """Return AP of each resample by score threshold, from the cache if it is of these matches."""
    if not folder.matches.is_file():
        return {}
    own = record["config"]["evaluation"]["nms_iou"]
    thresholds = sorted({row["score_threshold"] or 0.0 for row in record["metrics"] if row["nms_iou"] == own})
    sha256 = hashlib.sha256(folder.matches.read_bytes()).hexdigest()
    key = hashlib.sha256(repr((CACHE_VERSION, sha256, thresholds, RESAMPLES, SEED)).encode()).hexdigest()
    ap = _read_cache(folder.resampled, key, (len(thresholds), RESAMPLES))
    if ap is None:
        matches = read_matches(folder.matches)
        ap = resampled_ap(matches, thresholds, draw_counts(matches.positives.shape[2], RESAMPLES, SEED))
        with contextlib.suppress(RunError):  # a folder that cannot be written: resampled again the next time
            _write_cache(folder.resampled, key, ap)
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
