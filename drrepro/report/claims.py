"""Which claims a study makes, and what came of them.

A study names its claims; one of its own is a function of (evidence, candidate), given as module.function.
"""

from collections.abc import Callable
from importlib import import_module

from drrepro.errors import UsageError
from drrepro.report.claim import Claim
from drrepro.report.evidence import Evidence, of_studies
from drrepro.report.paper_claims import CLAIMS
from drrepro.studies.plan import Plan
from drrepro.studies.study import PAPER, Study, load_study


def find_claim(name: str) -> Callable[[Evidence, str], Claim]:
    """Return a claim by its name here, or as module.function. Raises UsageError where there is none."""
    if name in CLAIMS:
        return CLAIMS[name]
    module, _, attribute = name.rpartition(".")
    try:
        found: Callable[[Evidence, str], Claim] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(CLAIMS)
        raise UsageError(f"claim {name}: {error}; it is one of {known}, or module.function in --config-dir") from None
    return found


def claims_of(evidence: Evidence) -> list[Claim]:
    """Return the claims of a study on each of its candidates."""
    study = evidence.study
    return [find_claim(name)(evidence, candidate) for name in study.claims for candidate in study.candidates]


def build_claims(found: list[Evidence]) -> list[Claim]:
    """Return the claims of each study on each data set that it was planned for, and those of the paper in any case."""
    claims = []
    own = of_studies(found)
    names = dict.fromkeys([*PAPER, *(evidence.study.name for evidence in own)])
    for name in names:
        planned = [evidence for evidence in own if evidence.study.name == name]
        by_evidence = [claims_of(evidence) for evidence in planned or [_not_run(load_study(name))]]
        claims += [claim for same in zip(*by_evidence, strict=False) for claim in same]  # a claim on all its data
    return claims


def _not_run(study: Study) -> Evidence:
    paper = study.published.data if study.published else None
    return Evidence(Plan(study.name, study, "", paper, []), {}, {})
