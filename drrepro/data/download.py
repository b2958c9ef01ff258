"""Fetch the published data sets: resumable, checked before they are unpacked, whole or not there."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from drrepro.data.published import FETCHED, Archive
from drrepro.data.transfer import CHUNK, download, file_size, report_bytes
from drrepro.data.unpack import require_space, unpack
from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_json
from drrepro.progress import Report, stage

MARKER = "fetched.json"  # in the folder of each set: the digests of the archives that are wholly unpacked


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
        missing = [archive for archive in archives if done.get(archive.name) != archive.digest]
        _require_disk(root, missing)
        for archive in missing:
            root.mkdir(parents=True, exist_ok=True)
            write_json(root / MARKER, done)
            _fetch_archive(archive, root, _address(archive, mirror), report)
            done[archive.name] = archive.digest
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
        if any(done.get(archive.name) != archive.digest for archive in archives):
            raise UsageError(f"{root}: not wholly fetched; `drrepro data fetch {name}` goes on")
    return root


def _read_marker(root: Path, name: str) -> dict[str, str]:
    """Return the digest of each archive that is unpacked under ``root``; refuse a folder that is not ours."""
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
        download(url, path, archive.size, report, exact=archive.md5 is not None)
    if archive.md5 is not None:
        _verify(path, archive, url, report)
    aside = root / ".unpacking"
    shutil.rmtree(aside, ignore_errors=True)  # of a fetch that was killed
    try:
        _unpack(archive, path, aside, url, report)
        for file in [file for file in aside.rglob("*") if file.is_file()]:
            target = root / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        os.sync()  # before the marker: it must not outlast the files in a power cut
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack(archive: Archive, path: Path, aside: Path, url: str, report: Report) -> None:
    """Unpack to ``aside``. What was not checked before is now, and removed if it is not what was expected."""
    # Photographs hardly shrink, and all annotations together are under 1 GB: more is no archive of these.
    limit = 2 * archive.size + 10**9
    try:
        unpack(path, aside, archive.inside, limit, stage(report, f"unpack {archive.name}"), archive.parts)
        if archive.contents and (found := contents_sha256(aside)) != archive.contents:
            raise RunError(
                f"{url}: its files have the sha256 {found}, not the known {archive.contents}; removed, fetch again or "
                "choose another --mirror"
            )
    except RunError:
        if archive.md5 is None:
            path.unlink()
        raise


def contents_sha256(folder: Path) -> str:
    """Return the sha256 over the files of ``folder``, sorted by name: of each its name, its size and its bytes."""
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


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
