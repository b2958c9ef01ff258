"""Whether content from a file has the shape that this version writes: keys and types, as nested dicts and lists."""

from itertools import cycle
from typing import Any, get_args

EACH = "*"  # a key of a dict that stands for all that are not named
LARGEST = 1e15  # beyond, a float is no exact whole number, and arithmetic on it may overflow

# {"key": shape}: these keys at least. [shape]: a list of such; [shape, shape]: of just these two, and so on.
# (shape, shape): one of these. Otherwise a type, or several as in ``str | None``. A float may be written as a whole
# number; no number may be NaN, infinite or beyond LARGEST.
Shape = Any


def misfit(content: Any, shape: Shape, where: str = "it") -> str:
    """Return where ``content`` is not of ``shape``, and what it should be; empty where it is."""
    if isinstance(shape, dict):
        return _misfit_of_dict(content, shape, where)
    if isinstance(shape, tuple):
        found = [misfit(content, one, where) for one in shape]
        return "" if "" in found else found[-1]
    if isinstance(shape, list):
        if not isinstance(content, list):
            return f"{where} is no list"
        if len(content) != len(shape) > 1:
            return f"{where} has {len(content)} entries, not {len(shape)}"
        parts = zip(content, cycle(shape), strict=False)
        return next(filter(None, (misfit(item, part, f"{where}[{i}]") for i, (item, part) in enumerate(parts))), "")
    if _fits(content, get_args(shape) or (shape,)):
        return ""
    return f"{where} is no {getattr(shape, '__name__', shape)}"


def _misfit_of_dict(content: Any, shape: dict[str, Shape], where: str) -> str:
    if not isinstance(content, dict):
        return f"{where} is no object"
    missing = shape.keys() - content.keys() - {EACH}
    if missing:
        return f"{where} lacks {', '.join(sorted(missing))}"
    parts = {key: shape.get(key, shape.get(EACH)) for key in content if key in shape or EACH in shape}
    return next(filter(None, (misfit(content[key], part, f"{where}.{key}") for key, part in parts.items())), "")


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    if type(value) in (int, float) and not -LARGEST <= value <= LARGEST:
        return False
    return type(value) in kinds or (float in kinds and type(value) is int)
