"""Valid content with random edits: what a damaged, foreign or malicious file may hold."""

import copy
from typing import Any

from hypothesis import strategies as st

ODD_NUMBERS = [0, -1, 2**53, 10**400, -(10**400), 1e308, float("nan"), float("inf"), 0.5, True]
ODD_TEXT = ["", "..", "../../etc", "a\0b", "x" * 5000, "\ud800", "line\nline", "{}", "-", "None"]
ODD = st.one_of(
    st.none(),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_TEXT),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [1, 2], ["a"], {"a": {"b": []}}]),
)


@st.composite
def edited(draw: st.DrawFn, content: Any) -> Any:
    """Content with one to three edits at random places: something replaced, removed, doubled or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        content = _edit(draw, content)
    return content


def _edit(draw: st.DrawFn, content: Any) -> Any:
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 9)) == 0:
        return copy.deepcopy(draw(ODD))
    key = draw(st.sampled_from(sorted(content, key=repr) if isinstance(content, dict) else range(len(content))))
    action = draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "add"]))
    if action == "deeper":
        content[key] = _edit(draw, content[key])
    elif action == "remove":
        del content[key]
    elif isinstance(content, dict):
        content[draw(st.text(max_size=3))] = copy.deepcopy(draw(ODD))
    else:
        content.append(copy.deepcopy(draw(st.sampled_from([content[key], None, {}, 7]))))
    return content


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes that are cut off, or have a few others in them."""
    start = draw(st.integers(0, len(whole)))
    kind = draw(st.sampled_from(["cut", "overwrite", "insert"]))
    if kind == "cut":
        return whole[:start]
    other = draw(st.binary(min_size=1, max_size=8))
    return whole[:start] + other + whole[start + (len(other) if kind == "overwrite" else 0) :]
