"""How to repeat a number: the command of its run, and that of its whole table."""

import json
import re
import shlex
from functools import cache
from typing import Any

from drrepro.config import compose, to_dict
from drrepro.errors import UsageError
from drrepro.studies.plan import Plan
from drrepro.studies.study import DATA, THRESHOLD, load_study, study_names

Content = dict[str, Any]  # a configuration as plain data, as in a record

ELSEWHERE = ("runtime", "launcher", "tracker")  # how, not what
FOUND = ("data.sha256", "weights_sha256", "schedule.tuned_lr")  # in the data and weights; for information
ALONE = ("seed", "input.scale", "weights", "schedule.steps")  # nothing else follows from these


def run_command(config: Content) -> str | None:
    """Return the command that makes this very run; None where none can be told from its configuration."""
    given = _overrides(config)
    return None if given is None else _line("train", given)


def sweep_command(plan: Plan, configs: list[Content]) -> str | None:
    """Return the command that makes the runs of a table, of which ``configs`` exist; None where no one command does."""
    study = plan.study
    if study is None or study.name not in study_names():  # one of the user's own
        return None
    arms = {point.arm for point in plan.points}
    if arms != load_study(study.name).arms.keys():
        return None
    found = [_overrides(config) for config in configs]
    known = [given for given in found if given is not None]
    axes = {"loss", "seed", *([] if study.axis in (THRESHOLD, DATA) else [study.axis])}
    rest = {_words({key: value for key, value in given.items() if key not in axes}) for given in known}
    seeds, values = sorted({point.seed for point in plan.points}), [point.value for point in plan.points]
    product = len(seeds) * len(arms) * len(set(values))
    if len(known) < len(found) or len(rest) != 1 or product != len(plan.run_ids):
        return None
    words = dict(word.split("=", 1) for word in next(iter(rest)))
    largest = max((value for value in values if value is not None), default=None)
    if study.unit and largest != _composed((f"data={plan.data}",))[study.axis]:
        words[study.axis] = f"{largest:g}"  # the one that the others are fractions of
    return _line(f"sweep {study.name}", {**words, "seed": ",".join(map(str, seeds))})


def _overrides(config: Content) -> dict[str, str] | None:
    """Return what to override to get ``config``: data, loss, seed, and what differs from what these bring."""
    wanted = _flat(config)
    given = {"data": wanted["data.name"], "loss": wanted["loss.name"]}
    try:
        base = _composed(_words(given))
        given |= {key: _text(value) for key, value in wanted.items() if value != base.get(key) and key != "seed"}
        others = {key: value for key, value in given.items() if key not in ALONE}
        again = _composed(_words(others)) | {key: wanted[key] for key in ALONE}
    except UsageError:  # options of a folder of the user's own, or of another version
        return None
    same = all(again.get(key) == value for key, value in wanted.items())  # what came later is at its default
    return {**given, "seed": str(wanted["seed"])} if same else None


@cache
def _composed(words: tuple[str, ...]) -> Content:
    return _flat(to_dict(compose(list(words))))


def _flat(config: Content) -> Content:
    """Return all that shapes a run by its dotted key."""
    flat: Content = {}
    for key, value in config.items():
        flat |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if key not in FOUND and key.split(".")[0] not in ELSEWHERE}


def _words(given: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in given.items())


def _text(value: Any) -> str:
    """Return a value as Hydra reads it."""
    if isinstance(value, str) and re.fullmatch(r"[\w./:-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _line(command: str, given: dict[str, str]) -> str:
    return " ".join(["drrepro", command, *map(shlex.quote, _words(given))])
