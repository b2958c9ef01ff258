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
    wrong = _misfit(content, shape)
    return wrong and where + wrong


def _misfit(content: Any, shape: Shape) -> str:
    """Return what follows the place of ``content`` in such a sentence: a file may have a million rows that fit."""
    if isinstance(shape, dict):
        return _misfit_of_dict(content, shape)
    if isinstance(shape, tuple):
        found = [_misfit(content, one) for one in shape]
        return "" if "" in found else found[-1]
    if isinstance(shape, list):
        return _misfit_of_list(content, shape)
    if _fits(content, (shape,) if isinstance(shape, type) else get_args(shape)):
        return ""
    return f" is no {getattr(shape, '__name__', shape)}"


def _misfit_of_list(content: Any, shape: list[Shape]) -> str:
    if not isinstance(content, list):
        return " is no list"
    if len(content) != len(shape) > 1:
        return f" has {len(content)} entries, not {len(shape)}"
    for i, (item, part) in enumerate(zip(content, cycle(shape), strict=False)):
        if wrong := _misfit(item, part):
            return f"[{i}]{wrong}"
    return ""


def _misfit_of_dict(content: Any, shape: dict[str, Shape]) -> str:
    if not isinstance(content, dict):
        return " is no object"
    missing = shape.keys() - content.keys() - {EACH}
    if missing:
        return f" lacks {', '.join(sorted(missing))}"
    for key, value in content.items():
        if (key in shape or EACH in shape) and (wrong := _misfit(value, shape.get(key, shape.get(EACH)))):
            return f".{key}{wrong}"
    return ""


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    if type(value) in (int, float) and not -LARGEST <= value <= LARGEST:
        return False
    return type(value) in kinds or (float in kinds and type(value) is int)
