"""Whatever a file holds, its reader returns what this version would have written or raises UsageError or RunError."""

import copy
import gzip
import io
import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console
from typer.testing import CliRunner

from drrepro.cli import app, runs
from drrepro.config import compose, load_config, run_id, to_dict
from drrepro.data.download import MARKER, _read_marker
from drrepro.data.embedded import read_manifest
from drrepro.data.images import keep_good
from drrepro.data.splits import read_split
from drrepro.errors import RunError, UsageError
from drrepro.evaluation.bootstrap import draw_counts, resampled_ap
from drrepro.losses import GHMCLoss
from drrepro.models.retinanet import RetinaNet
from drrepro.progress import silent
from drrepro.report.claims import build_claims
from drrepro.report.evidence import Evidence, _read_cache, _write_cache, gather
from drrepro.report.tables import build_tables
from drrepro.report.written import claim_files, table_files
from drrepro.runs import states
from drrepro.runs.kept import read_detections, read_matches, write_matches
from drrepro.runs.lock import _describe, owner
from drrepro.runs.records import load_record
from drrepro.schema import DataConfig
from drrepro.studies import plan, planning
from drrepro.training.checkpoint import load_checkpoint, resume, save_checkpoint
from drrepro.training.schedule import build_optimizer
from tests.edits import damaged, edited
from tests.report.test_tables import fake, found_in, robust

RESULTS = Path(__file__).parents[1] / "results"
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
many, few = settings(max_examples=100, **QUIET), settings(max_examples=15, **QUIET)  # few: of what takes 0.1 s each
DEEP = b"[" * 200_000
refused = suppress(UsageError, RunError)
ENTRY = {"id": 3, "file_name": "00001.jpg", "width": 160, "height": 128}
COCO = {
    "images": [ENTRY, {**ENTRY, "id": 7}],
    "categories": [{"id": 1, "name": "one"}, {"id": 4, "name": "four"}],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 4, "bbox": [1, 2, 3.5, 4], "area": 14.0, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 2, 0, 4], "area": 0, "iscrowd": 1},
    ],
}


def read_all(config, split, root, folder):
    """Read a split as a run does, images too, and go through what is there."""
    with refused:
        dataset = read_split(config, split, root)
        for one in (dataset, keep_good(config, {split: dataset}, root, folder, silent)[split]):
            json.dumps(one.ground_truth(), allow_nan=False)
            ", ".join(one.classes).encode()


@many
@given(content=edited(COCO))
def test_a_coco_json(content, data_folder, tmp_path):
    (tmp_path / "test.json").write_text(json.dumps(content))
    config = DataConfig(name="mine", test_json="test.json", test_images=str(data_folder / "digits" / "images" / "test"))
    read_all(config, "test", tmp_path, tmp_path)
    read_all(DataConfig(**{**vars(config), "bad_images": "drop"}), "test", tmp_path, tmp_path)


@many
@given(content=damaged(json.dumps(COCO).encode()))
@example(content=DEEP)
@example(content=b'{"images": ' + DEEP)
@example(content=b'{"images": [{"id": 1e999, "file_name": "a", "width": 1, "height": 1}]}')
def test_a_damaged_coco_json(content, data_folder, tmp_path):
    (tmp_path / "test.json").write_bytes(content)
    config = DataConfig(name="mine", test_json="test.json", test_images=str(data_folder / "digits" / "images" / "test"))
    read_all(config, "test", tmp_path, tmp_path)


OBJECT = {"name": "A", "difficult": "0", "bndbox": {"xmin": "1", "ymin": "2", "xmax": "30.5", "ymax": "40"}}
ANNOTATION = {"size": {"width": "160", "height": "128"}, "object": [OBJECT, OBJECT]}


def as_xml(tag, content):
    """An element that holds what a json like content says; characters that XML cannot hold are left out."""
    node = ElementTree.Element(tag if isinstance(tag, str) and tag.isidentifier() else "odd")
    for key, value in content.items() if isinstance(content, dict) else ():
        node.extend(as_xml(key, one) for one in (value if isinstance(value, list) else [value]))
    if not isinstance(content, dict):
        node.text = "".join(c for c in str(content)[:6000] if c.isprintable() or c == "\n")
    return node


def write_voc(root, xml, names="one\n"):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / "one.xml").write_bytes(xml)
    (root / "ImageSets" / "Main" / "test.txt").write_bytes(names if isinstance(names, bytes) else names.encode())


VOC = DataConfig(name="mine", format="voc", test_split="test")
XML = ElementTree.tostring(as_xml("annotation", ANNOTATION))


@many
@given(content=edited(ANNOTATION))
def test_a_voc_annotation(content, tmp_path):
    xml = ElementTree.tostring(as_xml("annotation", content), encoding="utf-8")
    write_voc(tmp_path, xml)
    for classes in (None, ["A"]):
        read_all(DataConfig(**{**vars(VOC), "classes": classes}), "test", tmp_path, tmp_path)


@many
@given(xml=damaged(XML), names=damaged(b"one 1\n\none -1\n"))
@example(xml=b'<?xml version="1.0" encoding="klingon"?>' + XML, names=b"one")
@example(xml=b"<a>" * 100_000, names=b"one")
@example(xml=b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", names=b"a\0b")
@example(xml=XML, names=b"x" * 5000)
def test_a_damaged_voc_annotation_or_list(xml, names, tmp_path):
    write_voc(tmp_path, xml, names)
    read_all(VOC, "test", tmp_path, tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Plan and records of Table 1."""
    folder = tmp_path_factory.mktemp("reported")
    fake(folder, planning.plan_study("thresholds", []), robust)
    (evidence,) = gather(plan.load_plans(folder), folder)
    return evidence


def report_all(evidence):
    table_files([evidence])
    claim_files(build_claims([evidence]))
    build_tables([evidence])


def test_records_of_before_are_read():
    paths = list(RESULTS.glob("*/records/*.json"))
    assert len(paths) >= 42
    assert all(load_record(path)["id"] == path.stem for path in paths)


@many
@given(data=st.data())
def test_a_record(data, reported, tmp_path):
    name, record = next(iter(reported.records.items()))
    (tmp_path / "record.json").write_text(json.dumps(data.draw(edited(record))))
    states.state_of(tmp_path)
    with refused:
        read = load_record(tmp_path / "record.json")
        report_all(Evidence(reported.plan, {**reported.records, name: read}, {}))


@many
@given(data=st.data())
@example(data=None)
def test_a_damaged_record(data, reported, tmp_path):
    whole = json.dumps(next(iter(reported.records.values()))).encode()
    (tmp_path / "record.json").write_bytes(data.draw(damaged(whole)) if data else DEEP)
    states.state_of(tmp_path)
    with refused:
        load_record(tmp_path / "record.json")


SAID = {"state": "running", "stage": "train", "done": 3, "total": 9, "seconds_left": 1.5, "numbers": {"loss": 1.5}}
WHO = {"host": "here", "pid": 1, "since": "2026-01-01 00:00:00", "heartbeat": "2026-01-01 00:00:10"}


@many
@given(said=edited(SAID), who=edited(WHO), held=st.booleans())
def test_a_status_and_an_owner(said, who, held, tmp_path):
    (tmp_path / "status.json").write_text(json.dumps(said))
    (tmp_path / "owner.json").write_text(json.dumps(who))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "is_held", lambda directory: held)
        state = states.state_of(tmp_path)
    _describe(owner(tmp_path))
    assert isinstance(state.done, int)
    Console(file=io.StringIO()).print(runs._table([state]))


def test_a_status_and_an_owner_nested_deep(tmp_path):
    for name in ("status.json", "owner.json"):
        (tmp_path / name).write_bytes(DEEP)
    assert states.state_of(tmp_path).state == "new"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model, its optimizer after a step, and a folder with its checkpoint."""
    config = compose(["model=small", "model.fpn_channels=8", "model.head_convs=1"])
    model = RetinaNet(config.model, 2)
    optimizer = build_optimizer(model, config.schedule)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    loss = GHMCLoss(2)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    folder = tmp_path_factory.mktemp("trained")
    save_checkpoint(folder, model, loss, optimizer, scaler, 3, {"wall": 1.0, "cpu": 2.0})
    return model, loss, optimizer, scaler, folder


@few
@given(data=st.data())
def test_a_checkpoint(data, trained, tmp_path):
    model, loss, optimizer, scaler, folder = trained
    state = load_checkpoint(folder)
    torch.save(data.draw(edited(state)), tmp_path / "checkpoint.pt")
    with refused:
        step, seconds = resume(tmp_path, model, loss, optimizer, scaler)
        assert step >= 0
        assert seconds["wall"] + seconds["cpu"] < 1e16
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert resume(folder, model, loss, optimizer, scaler) == (3, {"wall": 1.0, "cpu": 2.0})


@few
@given(data=st.data())
def test_a_damaged_checkpoint_whose_checksums_are_right(data, trained, tmp_path):
    model, loss, optimizer, scaler, folder = trained
    with zipfile.ZipFile(folder / "checkpoint.pt") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    (pickled,) = (name for name in parts if name.endswith("data.pkl"))
    parts[pickled] = data.draw(damaged(parts[pickled]))
    with zipfile.ZipFile(tmp_path / "checkpoint.pt", "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    with refused:
        resume(tmp_path, model, loss, optimizer, scaler)
    resume(folder, model, loss, optimizer, scaler)


@many
@given(data=st.data())
def test_a_plan(data, reported, tmp_path):
    plan.save_plan(reported.plan, tmp_path)
    (path,) = (tmp_path / "plans").iterdir()
    path.write_text(json.dumps(data.draw(edited(json.loads(path.read_text())))))
    with refused:
        read = plan.read_plan(path)
        assert all("/" not in cell.run_id for cell in read.points)
        report_all(Evidence(read, reported.records, {}))


@many
@given(data=st.data())
def test_matches_and_their_resamples(data, tmp_path):
    write_matches(tmp_path, found_in([0.5, 0.25], [0.1, 0.5], 12))
    _write_cache(tmp_path / "bootstrap.npz", "key", np.ones((2, 5)))
    for path in (tmp_path / "matches.npz", tmp_path / "bootstrap.npz"):
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    with refused:
        read_matches(tmp_path / "matches.npz").check()
    ap = _read_cache(tmp_path / "bootstrap.npz", "key", (2, 5))
    assert ap is None or ap.shape == (2, 5)


@many
@given(data=st.data())
def test_arrays_that_do_not_belong_together(data, tmp_path):
    arrays = {name: value.tolist() for name, value in vars(found_in([0.5, 0.25], [0.1, 0.5], 4)).items()}
    content = data.draw(edited(arrays).filter(lambda content: isinstance(content, dict)))
    with suppress(ValueError, OverflowError, TypeError):  # of numpy, which has no array of these
        np.savez(tmp_path / "matches.npz", **{k: np.array(v) for k, v in content.items()})
    with refused:
        matches = read_matches(tmp_path / "matches.npz")
        resampled_ap(matches, [0.1], draw_counts(matches.positives.shape[2], 5, 0))


@many
@given(content=edited([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4.5], "score": 0.5}]))
def test_detections(content, tmp_path):
    (tmp_path / "detections.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    with refused:
        for row in read_detections(tmp_path / "detections.json.gz"):
            assert len(row["bbox"]) == 4
            assert row["score"] + sum(row["bbox"]) < 1e17


@few
@given(manifest=edited({"version": 1, "limit": None, "sha256": "ab"}), marker=edited({"a.zip": "md5"}))
def test_a_manifest_and_a_marker(manifest, marker, tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir(exist_ok=True)
    (tmp_path / "digits" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("DRREPRO_DATA", str(tmp_path))
    with refused:
        compose(["data=digits"])
    with refused:
        read_manifest(tmp_path / "digits")
    (tmp_path / MARKER).write_text(json.dumps(marker))
    with refused:
        _read_marker(tmp_path, "coco2017").get("a.zip")


@few
@given(data=st.data())
def test_a_configuration(data, tmp_path):
    content = data.draw(edited(to_dict(compose([]))))
    with suppress(Exception):  # of yaml, which has no way to write this
        OmegaConf.save(OmegaConf.create(content), tmp_path / "config.yaml")
        with refused:
            run_id(load_config(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text(json.dumps(content))  # json is yaml
    with refused:
        run_id(load_config(tmp_path / "config.yaml"))


@many
@given(content=damaged(OmegaConf.to_yaml(to_dict(compose([]))).encode()))
@example(content=DEEP)
@example(content=b"a: &a [*a]")
@example(content=b"${oc.env:HOME}")
@example(content=b"\xff")
def test_a_damaged_configuration(content, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with refused:
        run_id(load_config(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda content: DEEP, "test.json: not readable as json (nested too deep)"),
        (
            lambda content: json.dumps({**content, "images": [{**content["images"][0], "file_name": 7}]}).encode(),
            "file_name of an entry of images must be text: {'file_name': 7",
        ),
    ],
)
def test_two_that_were_taken_for_bugs(broken, said, data_folder, tmp_path):
    shutil.copytree(data_folder / "digits", tmp_path / "mine")
    path = tmp_path / "mine" / "test.json"
    path.write_bytes(broken(copy.deepcopy(json.loads(path.read_text()))))
    keys = [f"data.{split}_{part}" for split in ("train", "test") for part in ("json", "images")]
    paths = ["train.json", "images/train", "test.json", "images/test"]
    own = [f"{key}={path}" for key, path in zip(keys, paths, strict=True)]
    done = CliRunner().invoke(app, ["train", "data=coco_custom", f"data.root={tmp_path / 'mine'}", *own])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1
