"""Numbers as text: the one place where fractions become per cent."""

import math


def percent(fraction: float) -> float:
    """Return a fraction in per cent."""
    return 100 * fraction


def number_text(value: float | None, digits: int = 1) -> str:
    """Return a number as text, never as minus zero; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def percent_text(fraction: float | None) -> str:
    """Return a fraction in per cent as text, empty where there is none."""
    return "" if fraction is None else number_text(percent(fraction))
