import json
from dataclasses import fields, is_dataclass, make_dataclass
from pathlib import Path

import pytest

from drrepro.config import compose, from_dict, run_id, to_dict
from drrepro.identity import BASELINE, digest, essence
from drrepro.schema import Config

RESULTS = Path(__file__).parents[1] / "results"
RECORDS = sorted(RESULTS.glob("*/records/*.json"))
SECTIONS = [item.name for item in fields(Config) if is_dataclass(getattr(Config(), item.name))]


def published():
    return {path.stem: from_dict(json.loads(path.read_text())["config"], path) for path in RECORDS}


def later(config, value=None):
    """The configuration of a version with one key more in every section, at its default or at ``value``."""
    new = []
    for name in SECTIONS:
        section = getattr(config, name)
        kind = make_dataclass("Later", [("a_later_key", int, 0)], bases=(type(section),))
        extra = {} if value is None else {"a_later_key": value}
        new.append((name, kind(**vars(section), **extra)))
    return type(config)(**{**vars(config), **dict(new)})


def test_a_later_key_at_its_default_changes_no_id():
    configs = published()
    assert len(configs) >= 42
    assert [name for name, config in configs.items() if run_id(later(config)) != name] == []
    assert [name for name, config in configs.items() if run_id(later(config, value=1)) == name] == []


@pytest.mark.parametrize("section", [*SECTIONS, "a_new_section"])
def test_a_later_key_that_is_set_makes_another_run(section):
    content, defaults = to_dict(compose([])), to_dict(Config())
    before = digest(content, defaults)
    content = {**content, section: {**content.get(section, {}), "a_later_key": 0}}
    defaults = {**defaults, section: {**defaults.get(section, {}), "a_later_key": 0}}
    assert digest(content, defaults) == before
    content[section]["a_later_key"] = 1
    assert (digest(content, defaults) == before) == (section in ("runtime", "launcher", "tracker"))


def test_a_key_that_is_gone_counts_as_it_was():
    content, defaults = to_dict(compose(["loss=focal"])), to_dict(Config())
    assert "h" not in content["loss"]  # of another loss
    counted = essence(content, defaults)
    assert counted["loss"]["h"] == BASELINE["loss"]["h"] == 3.5
    assert counted.keys() == BASELINE.keys()
    assert counted["loss"].keys() == BASELINE["loss"].keys()


def test_every_key_of_the_baseline_counts():
    content, defaults = to_dict(compose([])), to_dict(Config())
    before = digest(content, defaults)
    flat = [(section, key) for section, own in BASELINE.items() if isinstance(own, dict) for key in own]
    assert len(flat) > 75
    for section, key in flat:
        changed = {**content, section: {**content[section], key: "other"}}
        assert digest(changed, defaults) != before, f"{section}.{key}"
