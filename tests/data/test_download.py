"""Fetching from a local server that breaks off, forgets ranges, changes files and serves what it should not."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from struct import pack

import pytest
from typer.testing import CliRunner

from drrepro.cli import app
from drrepro.config import compose
from drrepro.data import download, transfer
from drrepro.data.check import PUBLISHED
from drrepro.data.download import MARKER, fetch
from drrepro.data.published import FETCHED, Archive
from drrepro.data.splits import open_splits
from drrepro.errors import RunError, UsageError
from drrepro.progress import silent
from tests.conftest import shared

FILES = {"images/1.jpg": bytes(range(256)) * 4000, "images/2.jpg": b"two" * 1000, "annotations/a.json": b"{}"}


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; ``breaks`` holds the bytes after which the next answers break off."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        state = self.server
        state.requests.append((self.path, self.headers.get("Range")))
        if state.refusals:
            return self.send_error(state.refusals.pop(0))
        content = state.files.get(self.path)
        if content is None:
            return self.send_error(404)
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
        self.send_response(206 if asked and state.ranges else 200)
        if asked and state.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.states_length:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.close_connection = True
        self.send_header("ETag", hashlib.md5(content).hexdigest())
        self.end_headers()
        body = content[start:]
        if state.breaks:
            body = body[: state.breaks.pop(0)]
            self.close_connection = True
        state.served += self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.breaks, server.refusals, server.requests = {}, [], [], []
    server.ranges, server.served, server.states_length = True, 0, True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def zipped(files, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            entry = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)  # of a fixed date
            archive.writestr(entry, content, compression)
    return buffer.getvalue()


def tarred(files, *odd):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in odd:
            archive.addfile(entry)
    return buffer.getvalue()


@pytest.fixture
def publish(server, monkeypatch):
    """Serve archives {name: bytes} as the data set `set`; the sizes and sums of ``stated`` are the published ones."""
    monkeypatch.setattr(transfer, "PAUSE", 0.0)

    def publish(archives, stated=None, inside="."):
        server.files = {f"/zips/{name}": content for name, content in archives.items()}
        entries = []
        for name, content in {**archives, **(stated or {})}.items():
            digest = hashlib.md5(content).hexdigest()
            entries.append(Archive(f"{server.url}/zips/{name}", len(content), digest, inside))
        monkeypatch.setitem(FETCHED, "set", ("set", tuple(entries)))

    return publish


def get(folder, mirror=None, keep=False, report=silent):
    return fetch("set", folder, mirror, keep, report)


def unpacked(folder):
    root = folder / "set"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def test_a_whole_fetch_leaves_the_files_alone_and_is_not_repeated(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES), "b.zip": zipped({"more/3.jpg": b"three"}, zipfile.ZIP_DEFLATED)})
    stages = []
    states = get(tmp_path, report=lambda stage, done, total, numbers: stages.append((stage, done, total)))
    assert states == {"a.zip": "fetched", "b.zip": "fetched"}
    assert unpacked(tmp_path) == {**FILES, "more/3.jpg": b"three"}
    assert server.served == sum(map(len, server.files.values()))
    assert ("fetch a.zip, MB", 1, 1) in stages
    assert ("unpack a.zip", 3, 3) in stages
    assert get(tmp_path) == {"a.zip": "already there", "b.zip": "already there"}
    assert len(server.requests) == 2


def test_archives_share_folders_and_may_be_kept(publish, tmp_path):
    inside = "VOCdevkit/VOC2007"
    first = tarred({f"{inside}/JPEGImages/1.jpg": b"1"})
    second = tarred({f"{inside}/JPEGImages/2.jpg": b"2", f"{inside}/ImageSets/Main/test.txt": b"2\n"})
    publish({"first.tar": first, "second.tar": second}, inside=inside)
    get(tmp_path, keep=True)
    found = unpacked(tmp_path)
    assert found.pop("first.tar") == first
    assert found.pop("second.tar") == second
    assert found == {"JPEGImages/1.jpg": b"1", "JPEGImages/2.jpg": b"2", "ImageSets/Main/test.txt": b"2\n"}


def test_broken_transfers_go_on_where_they_ended(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    size = len(server.files["/zips/a.zip"])
    server.breaks = [1000, 0, 50_000]
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-", "bytes=1000-", "bytes=51000-"]
    assert server.served == size


def test_a_later_call_goes_on_where_the_first_gave_up(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    server.breaks = [70_000, *[0] * transfer.ATTEMPTS]
    with pytest.raises(RunError, match=r"a\.zip: the transfer broke off .* \(70,000 of .* the same command goes on"):
        get(tmp_path)
    assert "images/1.jpg" not in unpacked(tmp_path)
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert server.requests[-1][1] == "bytes=70000-"
    assert server.served == len(server.files["/zips/a.zip"])


def test_a_server_without_ranges_is_asked_for_the_whole_again(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    server.ranges, server.breaks = False, [1000]
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert server.served == 1000 + len(server.files["/zips/a.zip"])


def test_a_file_that_changed_on_the_server_is_begun_anew(server, publish, tmp_path):
    whole = zipped(FILES)
    publish({"a.zip": whole})
    server.files["/zips/a.zip"] = b"x" * len(whole)  # an older file of the same size
    server.breaks = [1000, *[0] * transfer.ATTEMPTS]
    with pytest.raises(RunError, match="broke off"):
        get(tmp_path)
    server.files["/zips/a.zip"] = whole
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert [asked for _, asked in server.requests[-2:]] == ["bytes=1000-", None]


def test_refusals_that_pass_are_tried_again_and_others_not(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    server.refusals = [503, 429]
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    shutil.rmtree(tmp_path / "set")
    server.refusals = [403]
    before = len(server.requests)
    with pytest.raises(RunError, match=r"a\.zip: HTTP Error 403: Forbidden; choose another --mirror"):
        get(tmp_path)
    assert len(server.requests) == before + 1


def test_a_range_beyond_the_file_begins_anew(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    server.breaks = [1000, *[0] * transfer.ATTEMPTS]
    with pytest.raises(RunError, match="broke off"):
        get(tmp_path)
    server.refusals = [416]
    get(tmp_path)
    assert unpacked(tmp_path) == FILES
    assert server.requests[-1][1] is None


def test_another_size_is_refused_before_it_is_fetched(server, publish, tmp_path):
    publish({"a.zip": zipped(FILES)}, stated={"a.zip": b"1234"})
    with pytest.raises(RunError, match=r"a\.zip: has \d+ bytes, not the published 4; choose another --mirror"):
        get(tmp_path)
    assert unpacked(tmp_path) == {}


def test_another_checksum_is_refused_removed_and_fetched_again(server, publish, tmp_path):
    whole = zipped(FILES)
    publish({"a.zip": whole[:-1] + b"x"}, stated={"a.zip": whole})
    with pytest.raises(RunError, match=r"with md5 \w{32}, not the published .* removed, fetch again"):
        get(tmp_path)
    assert unpacked(tmp_path) == {}
    server.files["/zips/a.zip"] = whole
    get(tmp_path)
    assert unpacked(tmp_path) == FILES


def link(kind, target):
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = kind, target
    return entry


def zip_with_link():
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    return zipped({info: b"/etc"})


def bomb():
    """A zip that claims to hold 3 GB."""
    return zipped({"a": bytes(123_457)}, zipfile.ZIP_DEFLATED).replace(pack("<I", 123_457), pack("<I", 3 * 10**9))


def lie():
    """A zip that claims to hold less than it does: no more than claimed is ever written."""
    return zipped({"a": bytes(123_457)}, zipfile.ZIP_DEFLATED).replace(pack("<I", 123_457), pack("<I", 10))


def huge_tar():
    """A sparse file: 10 GB in a kilobyte."""
    entry = tarfile.TarInfo("huge")
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**10)}
    return tarred({"a": b"a"}, entry)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", zipped({"ok": b"1", "../../out": b"2"}), r"\.\./\.\./out leads out of the folder; not unpacked"),
        ("a.zip", zipped({"/tmp/out": b"2"}), "/tmp/out leads out of the folder"),
        ("a.zip", zipped({"..\\out": b"2"}), "leads out of the folder"),
        ("a.zip", zip_with_link(), "link is a link or a device"),
        ("a.zip", zipped({"a": b"1", "a/b": b"2"}), "cannot be unpacked"),
        ("a.zip", zipped({"a": b"1", "./a": b"2"}), "cannot be unpacked .*File exists"),
        ("a.zip", zipped(FILES)[:-30], "cannot be unpacked"),
        ("a.zip", zipped(FILES).replace(b"twotwo", b"twoTwo", 1), "cannot be unpacked .*CRC"),
        ("a.zip", bomb(), r"unpacks to 3,000,000,000 bytes, more than the [\d,]+ expected"),
        ("a.zip", lie(), "cannot be unpacked .*CRC"),
        ("a.tar", tarred({"ok": b"1", "../out": b"2"}), r"\.\./out leads out of the folder"),
        ("a.tar", tarred({"/tmp/out": b"2"}), "/tmp/out leads out of the folder"),
        ("a.tar", tarred({}, link(tarfile.SYMTYPE, "/etc")), "link is a link or a device"),
        ("a.tar", tarred({}, link(tarfile.LNKTYPE, "../x")), "link is a link or a device"),
        ("a.tar", tarred({}, link(tarfile.FIFOTYPE, "")), "link is a link or a device"),
        ("a.tar", tarred(FILES)[:600_000], "cannot be unpacked"),
        ("a.tar", huge_tar(), r"unpacks to 10,000,000,001 bytes, more than the [\d,]+ expected"),
    ],
)
def test_archives_that_climb_out_or_are_damaged_leave_nothing(publish, tmp_path, name, content, message):
    publish({name: content})
    with pytest.raises(RunError, match=message):
        get(tmp_path)
    assert set(unpacked(tmp_path)) == {name}  # which is kept for a look at it
    assert {path.name for path in tmp_path.iterdir()} == {"set"}
    assert json.loads((tmp_path / "set" / MARKER).read_text()) == {}


def test_a_kill_while_files_are_moved_is_no_whole_set(server, publish, tmp_path, monkeypatch):
    publish({"a.zip": zipped(FILES)})

    def killed():
        raise KeyboardInterrupt

    monkeypatch.setattr(download.os, "sync", killed)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path)
    (tmp_path / "set" / "images" / "2.jpg").write_bytes(b"half")
    (tmp_path / "set" / ".unpacking").mkdir()
    monkeypatch.undo()
    publish({"a.zip": zipped(FILES)})
    assert get(tmp_path) == {"a.zip": "fetched"}
    assert unpacked(tmp_path) == FILES
    assert len(server.requests) == 1


def test_a_mirror_replaces_the_host(server, publish, tmp_path, monkeypatch):
    publish({"a.zip": zipped(FILES)})
    real = FETCHED["set"][1][0]
    official = Archive("http://official.invalid/zips/a.zip", real.size, real.md5)
    monkeypatch.setitem(FETCHED, "set", ("set", (official,)))
    server.files = {"/copy/zips/a.zip": server.files["/zips/a.zip"]}
    get(tmp_path / "1", mirror=f"{server.url}/copy/")
    assert unpacked(tmp_path / "1") == FILES
    monkeypatch.setenv("DRREPRO_MIRROR", f"{server.url}/copy")
    monkeypatch.setenv("DRREPRO_DATA", str(tmp_path / "2"))
    result = CliRunner().invoke(app, ["data", "fetch", "set", "--json", "--quiet"])
    assert json.loads(result.stdout) == {"a.zip": "fetched"}
    assert unpacked(tmp_path / "2") == FILES
    assert "a.zip" in CliRunner().invoke(app, ["data", "fetch", "set", "--quiet"]).stdout
    with pytest.raises(
        RunError, match=r"http://127\.0\.0\.1:1/zips/a\.zip: .*refused.*\(0 of .* --mirror asks another"
    ):
        get(tmp_path / "3", mirror="http://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"--mirror file:///etc: needs an address"):
        get(tmp_path, mirror="file:///etc")


def test_room_is_looked_for_before_anything_is_fetched(server, publish, tmp_path, monkeypatch):
    publish({"a.zip": zipped(FILES)})
    needed = 2 * len(server.files["/zips/a.zip"])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(RunError, match=rf"{needed:,} bytes are needed, {needed - 1:,} are free; .* DRREPRO_DATA"):
        get(tmp_path / "new")
    assert server.requests == []
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed))
    get(tmp_path / "new")


def test_what_was_not_fetched_is_left_alone(publish, tmp_path):
    publish({"a.zip": zipped(FILES)})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("do not lose")
    with pytest.raises(UsageError, match="exists, but was not fetched by drrepro; look at it with `drrepro data check"):
        get(tmp_path)
    assert unpacked(tmp_path) == {"thesis.txt": b"do not lose"}
    with pytest.raises(UsageError, match="imagenet: not a data set to fetch; choose from coco2017, coco2017_testdev"):
        fetch("imagenet", tmp_path, None, False, silent)


MADE = {  # as a server makes it of a repository when asked
    "Set-master/README.md": b"read me",
    "Set-master/Set/.DS_Store": b"of a desktop",
    "Set-master/Set/JPEGImages/1.jpg": b"one",
    "Set-master/Set/Annotations/1.xml": b"an object",
    "Set-master/other/2.jpg": b"two",
}
WANTED = {"Annotations/1.xml": b"an object", "JPEGImages/1.jpg": b"one"}
CONTENTS = hashlib.sha256(b"Annotations/1.xml\x009\x00an objectJPEGImages/1.jpg\x003\x00one").hexdigest()


@pytest.fixture
def made(server, monkeypatch):
    """Serve an archive of neither known size nor md5 as the data set `set`."""
    monkeypatch.setattr(transfer, "PAUSE", 0.0)

    def made(files, size=10**6):
        server.files = {"/zips/master.zip": zipped(files)}
        parts = ("Annotations", "JPEGImages")
        archive = Archive(f"{server.url}/zips/master.zip", size, None, "Set-master/Set", parts, CONTENTS)
        monkeypatch.setitem(FETCHED, "set", ("set", (archive,)))

    return made


@pytest.mark.parametrize("states_length", [True, False])
def test_an_archive_made_when_asked_is_known_by_its_contents(server, made, tmp_path, states_length):
    made(MADE)
    server.ranges, server.states_length = False, states_length
    server.breaks = [100] if states_length else []
    assert get(tmp_path) == {"master.zip": "fetched"}
    assert unpacked(tmp_path) == WANTED
    assert get(tmp_path) == {"master.zip": "already there"}
    assert len(server.requests) == 1 + states_length


def test_other_contents_are_refused_and_fetched_again(server, made, tmp_path):
    made({**MADE, "Set-master/Set/JPEGImages/1.jpg": b"won"})
    with pytest.raises(RunError, match=r"master.zip: its files have the sha256 .*, not the known .*; removed"):
        get(tmp_path)
    assert unpacked(tmp_path) == {}
    joined = {name: content for name, content in MADE.items() if "JPEG" not in name}
    joined["Set-master/Set/Annotations/1.xml"] = b"an objectJPEGImages/1.jpg\x003\x00one"  # the same bytes in one file
    made(joined)
    with pytest.raises(RunError, match="its files have the sha256"):
        get(tmp_path)
    made(MADE)
    get(tmp_path)
    assert unpacked(tmp_path) == WANTED


def test_one_that_broke_off_unseen_or_is_too_large_is_removed(server, made, tmp_path):
    made(MADE)
    server.states_length, server.breaks = False, [100]  # an end like any other
    with pytest.raises(RunError, match=r"master\.zip: cannot be unpacked"):
        get(tmp_path)
    assert unpacked(tmp_path) == {}
    made(MADE, size=50)
    with pytest.raises(RunError, match="has more than the 50 bytes expected"):
        get(tmp_path)
    assert unpacked(tmp_path) == {}


def test_the_photographs_of_bccd_are_known_by_their_contents(server, tmp_path):
    """As github.com serves them: below the repository's own folder, beside other files."""
    root = shared("bccd")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    path = "/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip"
    server.files = {path: zipped({f"BCCD_Dataset-master/{name}": content for name, content in files.items()})}
    fetch("bccd", tmp_path, server.url, False, silent)
    splits = open_splits(compose(["data=bccd"]).data, ["train", "test"], tmp_path)
    counts = {split: len(dataset.samples) for split, dataset in splits.items()}
    assert counts == PUBLISHED["bccd"] == {"train": 292, "test": 72}
    assert splits["train"].classes == splits["test"].classes == ["Platelets", "RBC", "WBC"]


def test_the_published_archives_are_official_and_complete():
    for folder, archives in (FETCHED[name] for name in ("coco2017", "coco2017_testdev", "voc2007")):
        assert folder in ("coco2017", "voc2007")
        for archive in archives:
            assert archive.url.startswith(("http://images.cocodataset.org/", "http://host.robots.ox.ac.uk/pascal/VOC/"))
            assert len(bytes.fromhex(archive.md5)) == 16
            assert archive.size > 10**6
            assert Path(archive.name).suffix == {"coco2017": ".zip", "voc2007": ".tar"}[folder]
