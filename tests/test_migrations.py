import json
from pathlib import Path

import pytest

from drrepro.config import from_dict, run_id
from drrepro.errors import UsageError
from drrepro.identity import FROZEN
from drrepro.losses.named import LOSSES
from drrepro.migrations import MIGRATIONS, SCHEMA, migrate
from drrepro.runs.records import load_record

RECORDS = sorted((Path(__file__).parents[1] / "results").glob("*/records/*.json"))


def first():
    """A record of version 1."""
    record = json.loads(RECORDS[0].read_text())
    loss = record["config"]["loss"]
    known = [LOSSES[name].Parameters() for name in FROZEN["losses"]]  # two then
    parameters = {key: value for own in known for key, value in vars(own).items()}
    densities = {key: record["densities"][0][key] for key in ("foreground", "background")}
    data = {key: value for key, value in record["data"].items() if key != "dropped_images"}
    config = {**record["config"], "loss": {**parameters, **loss}}
    return {**record, "schema": 1, "config": config, "data": data, "densities": densities}


def test_each_version_has_its_step():
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))


def test_a_record_of_version_1_loses_the_parameters_of_the_other_loss_and_keeps_its_id():
    before = first()
    after = migrate(before)
    assert after["schema"] == SCHEMA
    assert after["data"]["dropped_images"] == {}
    matcher = {key: before["config"]["matcher"][key] for key in ("fg_iou", "bg_iou")}
    assert after["densities"] == [{**matcher, **before["densities"], "auc": None}]
    own = LOSSES[before["config"]["loss"]["name"]].Parameters()
    assert set(after["config"]["loss"]) <= set(vars(own))
    assert set(before["config"]["loss"]) > set(vars(own))  # what is read is not touched
    assert run_id(from_dict(after["config"], RECORDS[0])) == run_id(from_dict(before["config"], RECORDS[0]))
    assert migrate(after) == after


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_published_records_are_of_this_version_once_read(path):
    record = load_record(path)
    assert record["schema"] == SCHEMA
    assert run_id(from_dict(record["config"], path)) == record["id"] == path.stem


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, True, None, "1"])
def test_other_versions_are_refused(schema, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({**first(), "schema": schema}))
    with pytest.raises(
        UsageError, match=rf"another version of drrepro \(schema {schema}, this one reads 1 to {SCHEMA}"
    ):
        load_record(tmp_path / "record.json")
