"""Which claims a study makes, and what came of them.

A study names its claims; one of its own is a function of (evidence, candidate), given as module.function.
"""

import logging
from collections.abc import Callable
from importlib import import_module

from drrepro.errors import UsageError
from drrepro.report.claim import Claim
from drrepro.report.evidence import Evidence, of_studies
from drrepro.report.paper_claims import CLAIMS
from drrepro.studies.plan import Plan
from drrepro.studies.study import PAPER, Study, load_study

log = logging.getLogger(__name__)


def find_claim(name: str) -> Callable[[Evidence, str], Claim]:
    """Return a claim by its name here, or as module.function. Raises UsageError where there is none."""
    if name in CLAIMS:
        return CLAIMS[name]
    module, dot, attribute = name.rpartition(".")
    if not dot:
        raise UsageError(f"claim {name}: not known; choose from {', '.join(CLAIMS)}, or give module.function")
    try:
        found: Callable[[Evidence, str], Claim] = getattr(import_module(module), attribute)
    except Exception as error:  # the file of somebody else raises whatever it likes
        raise UsageError(f"claim {name}: {error}; its file must lie in --config-dir or on PYTHONPATH") from None
    if not callable(found):
        raise UsageError(f"claim {name}: is no function of (evidence, candidate)")
    return found


def claims_of(evidence: Evidence) -> list[Claim]:
    """Return the claims of a study on each of its candidates.

    A claim in a file that is not at hand is left out, which is said: a table stands without it. Raises UsageError for
    one that cannot be asked of this study.
    """
    return [claim for name in evidence.study.claims for claim in _asked(name, evidence)]


def _asked(name: str, evidence: Evidence) -> list[Claim]:
    study = evidence.study
    try:
        claim = find_claim(name)
    except UsageError as error:
        if name in CLAIMS or "." not in name:
            raise
        log.warning("study %s: left out: %s", study.name, error)
        return []
    try:
        return [claim(evidence, candidate) for candidate in study.candidates]
    except Exception as error:  # a claim of two settings asked of one, or whatever a function of somebody else raises
        raise UsageError(f"study {study.name}: claim {name}: {type(error).__name__}: {error}") from None


def build_claims(found: list[Evidence]) -> list[Claim]:
    """Return the claims of each study on each data set that it was planned for, and those of the paper in any case."""
    by_study: dict[str, list[Evidence]] = {name: [] for name in PAPER}
    for evidence in of_studies(found):
        by_study.setdefault(evidence.study.name, []).append(evidence)
    claims = []
    for name, planned in by_study.items():
        if name in PAPER and not any(evidence.study.candidates for evidence in planned):
            planned = [_not_run(load_study(name))]
        names = dict.fromkeys(claim for evidence in planned for claim in evidence.study.claims)
        claims += [c for claim in names for e in planned if claim in e.study.claims for c in _asked(claim, e)]
    return claims


def _not_run(study: Study) -> Evidence:
    paper = study.published.data if study.published else None
    return Evidence(Plan(study.name, study, "", paper, []), {}, {})
