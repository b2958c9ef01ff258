"""Make what stands in results/ again from the records and resampled AP kept there: nothing is run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drrepro.config import from_dict, run_id
from drrepro.errors import UsageError
from drrepro.report.calibration import calibrate
from drrepro.report.claims import build_claims
from drrepro.report.evidence import Evidence
from drrepro.report.written import CALIBRATION, calibration_files, claim_files, read_kept, table_files

IDENTICAL = "identical"


@dataclass(frozen=True)
class Check:
    """A file or record and what became of it: identical, differs, missing, or made of no plan."""

    name: str
    state: str


def verify(results: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Check]:
    """Return a check of each table and claim (made again, to the byte) and of each record (its id from its contents).

    And of what `drrepro bench verdicts` wrote, if it was asked, which takes most of the time; ``progress``: of that.

    Raises UsageError where nothing is kept, or something kept is damaged.
    """
    found = read_kept(results)
    files = {**table_files(found), **claim_files(build_claims(found))}
    if (results / f"{CALIBRATION}.csv").is_file():
        files |= calibration_files(calibrate(found, progress))
    checks = [Check(name, _state(results / name, text)) for name, text in sorted(files.items())]
    for folder in sorted({results / evidence.plan.data for evidence in found}):
        known = {results / name for name in files}
        others = [p for p in sorted(folder.iterdir()) if p.suffix in (".csv", ".md", ".tex") and p not in known]
        checks += [Check(str(path.relative_to(results)), "made of no plan") for path in others]
    return checks + _records(found, results)


def _state(path: Path, text: str) -> str:
    try:
        return IDENTICAL if path.read_bytes() == text.encode() else "differs"
    except OSError:
        return "missing"


def _records(found: list[Evidence], results: Path) -> list[Check]:
    checks = {}
    for evidence in found:
        for name, record in evidence.records.items():
            path = Path(evidence.plan.data) / "records" / f"{name}.json"
            try:
                same = run_id(from_dict(record["config"], results / path)) == record["id"] == name
            except UsageError:
                same = False
            checks[str(path)] = Check(str(path), IDENTICAL if same else "is of another id")
    return list(checks.values())
