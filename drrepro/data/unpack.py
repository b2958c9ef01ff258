"""Unpack archives from elsewhere: nothing is written but regular files, below one folder, up to a size."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from drrepro.errors import RunError

Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, bytes, opener


def unpack(
    archive: Path,
    folder: Path,
    inside: str,
    limit: int,
    progress: Callable[[int, int], None],
    parts: tuple[str, ...] = (),
) -> None:
    """Write the files of a zip or uncompressed tar, which all lie in its directory ``inside``, to a new ``folder``.

    With ``parts`` those alone that lie directly in these folders below ``inside``; what else there is is left alone.
    Raises RunError, naming the archive, when it is damaged, holds a link, a path that leads out of ``inside`` or a name
    twice, or more than ``limit`` bytes, or when the disk has no room for them. ``folder`` may then hold a part.
    """
    try:
        folder.mkdir(parents=True)
        with _members(archive, [str(PurePosixPath(inside, part)) for part in parts]) as members:
            total = sum(size for _, size, _ in members)
            if total > limit:
                raise RunError(f"{archive}: unpacks to {total:,} bytes, more than the {limit:,} expected; not unpacked")
            require_space(folder, total)
            targets = [folder / _relative(archive, name, inside) for name, _, _ in members]
            for i, (target, (_, _, opener)) in enumerate(zip(targets, members, strict=True), start=1):
                target.parent.mkdir(parents=True, exist_ok=True)
                with opener() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
                progress(i, len(members))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError, ValueError, OSError) as error:
        raise RunError(f"{archive}: cannot be unpacked ({error})") from None


def require_space(folder: Path, needed: int) -> None:
    """Raise RunError unless the disk of ``folder`` has ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder}: {needed:,} bytes are needed, {free:,} are free; free some or set DRREPRO_DATA to another disk"
        )


@contextmanager
def _members(path: Path, folders: list[str]) -> Iterator[list[Member]]:
    """Yield what is to be written of an archive, of ``folders`` if any; none yields more bytes than stated."""

    def wanted(name: str) -> bool:
        return not folders or name.rpartition("/")[0] in folders

    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir() and wanted(info.filename)]
            for info in infos:
                _require_file(path, info.filename, stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG))
            yield [(info.filename, info.file_size, partial(archive.open, info)) for info in infos]
    else:
        with tarfile.open(path, "r:") as tar:
            entries = [entry for entry in tar.getmembers() if not entry.isdir() and wanted(entry.name)]
            for entry in entries:
                _require_file(path, entry.name, entry.isreg())
            yield [(entry.name, entry.size, partial(_open_entry, tar, entry)) for entry in entries]


def _open_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(entry)
    assert file is not None  # of a regular file
    return file


def _require_file(archive: Path, name: str, regular: bool) -> None:
    if not regular:
        raise RunError(f"{archive}: {name} is a link or a device; not unpacked")


def _relative(archive: Path, name: str, inside: str) -> PurePosixPath:
    """Return a member's path below ``inside``; raise RunError for one that is not below."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.is_relative_to(inside):
        raise RunError(f"{archive}: {name} leads out of the folder; not unpacked")
    return path.relative_to(inside)
