"""The numbers of a paper that stand beside those of a study."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Published:
    """A paper's numbers, as fractions, by setting, arm and metric."""

    data: str  # our name of the data set that they are of
    of: str  # the paper's name of it
    numbers: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def read_published(content: dict[str, Any] | None, metrics: list[str], per_cent: bool) -> Published | None:
    """Return the numbers of a paper: by name, or in the order of the metrics, of which the last may lack."""
    if content is None:
        return None

    def named(values: Any) -> dict[str, float]:
        """Return the numbers of an arm as fractions, by metric."""
        if not isinstance(values, dict):
            if len(values) > len(metrics):
                raise ValueError(f"published: {len(values)} numbers of {len(metrics)} metrics")
            values = dict(zip(metrics, values, strict=False))
        return {metric: value / 100 if per_cent else value for metric, value in values.items()}

    rows = {setting: {arm: named(v) for arm, v in arms.items()} for setting, arms in content["numbers"].items()}
    return Published(content["data"], content["of"], rows)
