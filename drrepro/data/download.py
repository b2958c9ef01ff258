"""Fetch the published data sets: resumable, checked before they are unpacked, whole or not there."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drrepro.data.transfer import CHUNK, download, file_size, report_bytes
from drrepro.data.unpack import require_space, unpack
from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_json
from drrepro.progress import Report

MARKER = "fetched.json"  # in the folder of each set: the md5 sums of the archives that are wholly unpacked


@dataclass(frozen=True)
class Archive:
    """A published archive: its official address, size in bytes, md5, and the directory in it that is wanted."""

    url: str
    size: int
    md5: str
    inside: str = "."

    @property
    def name(self) -> str:
        """The file name."""
        return self.url.rsplit("/", 1)[1]


COCO = "http://images.cocodataset.org"
VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
VOC_FOLDER = "VOCdevkit/VOC2007"
# The publishers state neither sizes nor sums. The md5 sums are those that torchvision (VOC) and many installers (COCO)
# check, the sizes those that the servers state in public download logs.
COCO2017 = (
    Archive(f"{COCO}/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    Archive(f"{COCO}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    Archive(f"{COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"),
)
TESTDEV = (
    Archive(f"{COCO}/zips/test2017.zip", 6_646_970_404, "77ad2c53ac5d0aea611d422c0938fb35"),
    Archive(f"{COCO}/annotations/image_info_test2017.zip", 1_144_034, "85da7065e5e600ebfee8af1edb634eb5"),
)
VOC2007 = (
    Archive(f"{VOC}/VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64", VOC_FOLDER),
    Archive(f"{VOC}/VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f", VOC_FOLDER),
)
# Data set: its folder under $DRREPRO_DATA, and its archives. test-dev lies beside the other splits of COCO.
FETCHED = {
    "coco2017": ("coco2017", COCO2017),
    "coco2017_testdev": ("coco2017", TESTDEV),
    "voc2007": ("voc2007", VOC2007),
}


def fetch(name: str, data_folder: Path, mirror: str | None, keep: bool, report: Report) -> dict[str, str]:
    """Fetch and unpack the archives of ``name`` that are not there yet; return what became of each.

    ``mirror`` replaces scheme and host of the official addresses; ``keep`` leaves the archives beside the images.
    Raises UsageError for an unknown name, a bad mirror, or a folder that was not fetched; RunError when an archive
    cannot be had, is not the published one, or does not fit on the disk. The next call goes on where one ended.
    """
    if name not in FETCHED:
        raise UsageError(f"{name}: not a data set to fetch; choose from {', '.join(FETCHED)}")
    if mirror is not None and (urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc):
        raise UsageError(f"--mirror {mirror}: needs an address such as https://host/folder")
    folder, archives = FETCHED[name]
    root = data_folder / folder
    try:
        done = _read_marker(root, name)
        missing = [archive for archive in archives if done.get(archive.name) != archive.md5]
        _require_disk(root, missing)
        for archive in missing:
            root.mkdir(parents=True, exist_ok=True)
            write_json(root / MARKER, done)
            _fetch_archive(archive, root, _address(archive, mirror), report)
            done[archive.name] = archive.md5
            write_json(root / MARKER, done)
            if not keep:
                (root / archive.name).unlink()
    except OSError as error:
        raise RunError(f"{root}: cannot be written ({error.strerror or error}); set DRREPRO_DATA to another") from None
    return {archive.name: "fetched" if archive in missing else "already there" for archive in archives}


def require_fetched(name: str, data_folder: Path) -> Path:
    """Return the folder of ``name``; raise UsageError when it is not there, or a fetch has not brought it wholly.

    A folder that somebody else laid out is taken as it is.
    """
    folder, archives = FETCHED[name]
    root = data_folder / folder
    if not root.is_dir():
        raise UsageError(f"{root}: not here; run `drrepro data fetch {name}`, or set data.root")
    if (root / MARKER).is_file():
        done = _read_marker(root, name)
        if any(done.get(archive.name) != archive.md5 for archive in archives):
            raise UsageError(f"{root}: not wholly fetched; `drrepro data fetch {name}` goes on")
    return root


def _read_marker(root: Path, name: str) -> dict[str, str]:
    """Return the md5 sum of each archive that is unpacked under ``root``; refuse a folder that is not ours."""
    if not root.exists() or not any(root.iterdir()):
        return {}
    try:
        done: Any = read_json(root / MARKER)
    except FileNotFoundError:
        raise UsageError(
            f"{root}: exists, but was not fetched by drrepro; look at it with `drrepro data check {name}`, "
            "or move it away"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{root / MARKER}: damaged ({error}); remove {root} and fetch again") from None
    return done if isinstance(done, dict) else {}


def _require_disk(root: Path, missing: list[Archive]) -> None:
    """Look for room before anything begins: for each archive, and beside it what it holds."""
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    here = sum(file_size(root / archive.name) + file_size(root / f"{archive.name}.part") for archive in missing)
    require_space(existing, sum(2 * archive.size for archive in missing) - here)


def _address(archive: Archive, mirror: str | None) -> str:
    return archive.url if mirror is None else mirror.rstrip("/") + urlsplit(archive.url).path


def _fetch_archive(archive: Archive, root: Path, url: str, report: Report) -> None:
    """Download, check, unpack aside, then move each file to its place."""
    path = root / archive.name
    if not path.exists():
        download(url, path, archive.size, report)
    _verify(path, archive, url, report)
    aside = root / ".unpacking"
    shutil.rmtree(aside, ignore_errors=True)  # of a fetch that was killed
    try:
        # Photographs hardly shrink, and all annotations together are under 1 GB: more is no archive of these.
        limit = 2 * archive.size + 10**9
        unpack(path, aside, archive.inside, limit, lambda i, n: report(f"unpack {archive.name}", i, n, {}))
        for file in [file for file in aside.rglob("*") if file.is_file()]:
            target = root / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        os.sync()  # before the marker: it must not outlast the files in a power cut
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _verify(path: Path, archive: Archive, url: str, report: Report) -> None:
    """Remove the file and raise RunError unless it has the published size and md5."""
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report_bytes(report, f"check {archive.name}", done, archive.size)
    if (done, digest.hexdigest()) != (archive.size, archive.md5):
        path.unlink()
        raise RunError(
            f"{url}: {done:,} bytes with md5 {digest.hexdigest()}, not the published {archive.size:,} with "
            f"{archive.md5}; removed, fetch again or choose another --mirror"
        )
