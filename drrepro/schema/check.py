"""How a key is refused."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from drrepro.errors import UsageError


def require(ok: bool, key: str, value: object, rule: str) -> None:
    """Raise UsageError, naming the key, its value and the rule, unless ``ok``."""
    if not ok:
        raise UsageError(f"{key}={value}: {rule}")


def numbers(section: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted name and the value of every number of a configuration."""
    for item in fields(section):
        value, key = getattr(section, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from numbers(value, f"{key}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                yield key, number
