"""What a study asks of the report, looked at before anything is trained."""

from drrepro.errors import UsageError
from drrepro.report.claims import find_claim
from drrepro.report.figures import FIGURES
from drrepro.studies.study import Study, split_metric


def check_study(study: Study | None) -> None:
    """Raise UsageError for claims and figures that there are not."""
    if study is None:
        return
    for name in study.claims:
        find_claim(name)
    thresholds = [split_metric(metric)[1] for metric in study.metrics if " at " in metric]
    if "overfitting" in study.figures and len(thresholds) != 2:
        raise UsageError(f"study {study.name}: figure overfitting: needs metrics at two thresholds, as in AP at 0.5")
    for name in study.figures:
        if name not in FIGURES:
            raise UsageError(f"study {study.name}: figure {name}: must be one of {', '.join(FIGURES)}")
