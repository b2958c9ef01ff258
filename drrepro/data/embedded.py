"""Write the embedded data sets, and check that what is read is what was written."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drrepro.errors import RunError, UsageError
from drrepro.files import read_json, write_json
from drrepro.shape import misfit

NAMES = ("digits", "letters")
MANIFEST = "manifest.json"  # in the folder of each set: version and sha256
VERSION = 1  # of what is drawn
# The sets that the committed results were computed on. Another version of Pillow or of the typefaces may round
# a pixel differently; the sets are then as good, but not the same.
PUBLISHED = {
    "digits": "0067694e8b0a489196255e6236271a98a4aa8edcb7708aabe95c8b66eaeee341",
    "letters": "2cfd37604ddfddc087cf11308df45c118882cb3e081d9c14d73abbe9aba08cfb",
}


def make_embedded(name: str, folder: Path, progress: Callable[[int, int], None], limit: int | None = None) -> str:
    """Write the set ``name`` to ``folder``/<name>, unless it is there and whole; return its sha256.

    ``limit`` caps the images of a split, for a quick look.
    Raises UsageError for an unknown name or a folder that is not ours to replace, RunError when it cannot be written.
    """
    if name not in NAMES:
        raise UsageError(f"{name}: not an embedded data set; choose from {', '.join(NAMES)}")
    root = folder / name
    if root.exists():
        if not (root / MANIFEST).is_file():
            raise UsageError(f"{root}: exists, but was not written by drrepro data make; move it away")
        manifest = read_manifest(root)
        if (manifest["version"], manifest.get("limit")) == (VERSION, limit) and checksum(root) == manifest["sha256"]:
            return str(manifest["sha256"])
    building = folder / f".{name}.building"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        _write(name, building, progress, limit)
        digest = checksum(building)
        write_json(building / MANIFEST, {"version": VERSION, "limit": limit, "sha256": digest})
        if root.exists():
            shutil.rmtree(root)
        building.rename(root)
    except OSError as error:
        raise RunError(
            f"{root}: cannot be written ({error.strerror or error}); set DRREPRO_DATA to a folder with space"
        ) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return digest


def _write(name: str, root: Path, progress: Callable[[int, int], None], limit: int | None) -> None:
    # Imported here because reading a set, which every run does, needs neither scikit-learn nor matplotlib.
    from drrepro.data.digits import write_digits
    from drrepro.data.letters import write_letters

    writers = {"digits": write_digits, "letters": write_letters}
    writers[name](root, progress, limit)


def require_embedded(name: str, root: Path) -> str:
    """Return the sha256; raise UsageError unless the set was written by this version and not touched since."""
    if not (root / MANIFEST).is_file() or read_manifest(root)["version"] != VERSION:
        raise UsageError(f"{root}: no {name} of this version here; run `drrepro data make`")
    digest = checksum(root)
    if digest != read_manifest(root)["sha256"]:
        raise UsageError(f"{root}: changed since it was written; run `drrepro data make` to write it again")
    return digest


def checksum(root: Path) -> str:
    """Return the sha256 over names and contents of all files but the manifest and hidden ones."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_manifest(root: Path) -> dict[str, Any]:
    """Return version, limit and sha256 of a set. Raises UsageError where they are not to be read."""
    try:
        content = read_json(root / MANIFEST)
        if wrong := misfit(content, {"version": int, "sha256": str}):
            raise ValueError(wrong)
        return {"limit": None, **content}
    except (OSError, ValueError) as error:
        raise UsageError(f"{root / MANIFEST}: damaged ({error}); remove {root} and run `drrepro data make`") from None
