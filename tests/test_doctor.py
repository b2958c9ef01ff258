import json
import shutil
from importlib import metadata

import pytest
from typer.testing import CliRunner

from drrepro import doctor
from drrepro.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


def finding(name):
    done = invoke("--json")
    (found,) = [row for row in json.loads(done.stdout) if row["name"] == name]
    return found, done.exit_code


def test_each_thing_has_a_line_and_what_is_not_ok_a_remedy(environment):
    done = invoke()
    assert done.exit_code == 0, done.output
    rows = json.loads(invoke("--json").stdout)
    assert len(done.stdout.splitlines()) == len(rows)
    names = {row["name"] for row in rows}
    assert {"drrepro", "torch", "device", "threads", "memory", "data folder", "runs folder", "conf/"} <= names
    assert {"data=digits", "data=coco2017", "launcher=slurm", "launcher=ray", "runtime.compile"} <= names
    for row, line in zip(rows, done.stdout.splitlines(), strict=True):
        assert (row["remedy"] == "") == (row["state"] == "ok"), row
        assert line.startswith(row["name"])
        assert row["remedy"] in line


def test_data_are_absent_whole_or_changed(environment, data_folder, tmp_path, monkeypatch):
    assert finding("data=digits")[0]["state"] == "ok"
    assert finding("data=coco2017") == (
        {"name": "data=coco2017", "state": "absent", "found": "not here", "remedy": "`drrepro data fetch coco2017`"},
        0,
    )
    shutil.copytree(data_folder / "digits", tmp_path / "digits")
    next((tmp_path / "digits" / "images" / "test").iterdir()).unlink()
    monkeypatch.setenv("DRREPRO_DATA", str(tmp_path))
    changed, code = finding("data=digits")
    assert (changed["state"], changed["remedy"], code) == ("bad", "`drrepro data make digits`", 1)
    assert "changed since it was written" in changed["found"]


@pytest.mark.parametrize("package", ["pandas", "submitit"])
def test_a_package_that_is_missing_or_old_is_said(environment, package, monkeypatch):
    name = "launcher=slurm" if package == "submitit" else package
    original = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda asked: "0.1" if asked == package else original(asked))
    old, code = finding(name)
    assert (old["state"], code) == ("bad", 1)
    assert "0.1, not >=" in old["found"]

    def missing(asked):
        if asked == package:
            raise metadata.PackageNotFoundError
        return original(asked)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    none, code = finding(name)
    assert (none["state"], code) == (("absent", 0) if package == "submitit" else ("bad", 1))
    assert "not installed" in none["found"]
    assert "pip install" in none["remedy"]


def test_no_room_too_many_threads_and_no_conf_are_bad(environment, monkeypatch):
    monkeypatch.setattr(doctor, "DISK", 10**9)
    assert finding("data folder")[0]["remedy"].startswith("set DRREPRO_DATA")
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: 10**6)
    assert finding("threads")[0]["state"] == "bad"
    monkeypatch.setattr(doctor, "MEMORY", 10**9)
    assert finding("memory")[0]["state"] == "bad"
    monkeypatch.setattr("drrepro.config.__file__", "/nowhere/drrepro/config.py")
    found, code = finding("conf/")
    assert (found["state"], code) == ("bad", 1)
    assert "install drrepro again" in found["remedy"]
