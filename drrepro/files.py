"""Write files so that a reader, or the next start, never finds half of one."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from drrepro.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def atomic_write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, then rename it.

    Raises RunError, naming the path, when the disk is full or the folder not writable; ``path`` is then unchanged.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose another folder"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes have left of ``path``, which no other may be writing."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def write_png(figure: "Figure", path: Path) -> Path:
    """Write a figure atomically and return its path."""
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return path


def read_json(path: Path) -> Any:
    """Return json content. Raises OSError, and ValueError for what is not json, or nested too deep to be read."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically, in UTF-8."""
    atomic_write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` atomically as indented json; NaN is refused, since json has none."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
