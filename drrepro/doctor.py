"""What this installation and machine have, what is missing, and what to do about it."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from drrepro import __version__
from drrepro.config import config_folder, data_folder, runs_folder
from drrepro.data.download import require_fetched
from drrepro.data.embedded import NAMES, require_embedded
from drrepro.data.published import FETCHED
from drrepro.errors import UsageError
from drrepro.experiments.launchers import cores

MEMORY, DISK = 4, 2  # GB that `make reproduce` is comfortable with


@dataclass(frozen=True)
class Finding:
    """One thing: ok, absent (nothing needs it before it is asked for), or bad."""

    name: str
    state: str
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Return a finding of each thing that runs depend on."""
    return [*_versions(), _device(), _threads(), _memory(), *_disk(), _conf(), *_data(), *_extras(), _compiler()]


def _versions() -> Iterator[Finding]:
    yield Finding("drrepro", "ok", f"{__version__}, Python {platform.python_version()}")
    needed = [Requirement(line) for line in metadata.requires("drrepro") or []]
    for requirement in (one for one in needed if one.marker is None):
        yield _installed(requirement, "bad", f"pip install '{requirement}'")


def _installed(requirement: Requirement, otherwise: str, remedy: str) -> Finding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, otherwise, "not installed", remedy)
    if version not in requirement.specifier:
        return Finding(requirement.name, "bad", f"{version}, not {requirement.specifier}", remedy)
    return Finding(requirement.name, "ok", version)


def _device() -> Finding:
    if torch.cuda.is_available():
        return Finding("device", "ok", ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))))
    remedy = "the embedded sets need none; the paper's own protocol (DATA=coco) needs a GPU and torch with CUDA"
    return Finding("device", "absent", f"CPU ({torch.backends.cpu.get_cpu_capability()}), no GPU", remedy)


def _threads() -> Finding:
    found = f"{torch.get_num_threads()} of {cores()} cores"
    if torch.get_num_threads() > cores():
        return Finding("threads", "bad", found, "unset OMP_NUM_THREADS: threads that share a core wait for each other")
    return Finding("threads", "ok", found)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    remedy = f"below {MEMORY} GB sweep with --jobs 1"
    return Finding("memory", *(("ok", f"{total:.0f} GB") if total >= MEMORY else ("bad", f"{total:.1f} GB", remedy)))


def _disk() -> Iterator[Finding]:
    for name, variable, folder in (
        ("data folder", "DRREPRO_DATA", data_folder()),
        ("runs folder", "DRREPRO_RUNS", runs_folder()),
    ):
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free / 1e9
        found, remedy = f"{folder}, {free:.0f} GB free", f"set {variable} to a folder with space that can be written"
        good = free >= DISK and os.access(existing, os.W_OK)
        yield Finding(name, "ok", found) if good else Finding(name, "bad", found, remedy)


def _conf() -> Finding:
    try:
        return Finding("conf/", "ok", str(config_folder()))
    except UsageError as error:
        return Finding("conf/", "bad", "not found", str(error))


def _data() -> Iterator[Finding]:
    for name in (*NAMES, *FETCHED):
        path = data_folder() / (name if name in NAMES else FETCHED[name][0])
        command = f"drrepro data {'make' if name in NAMES else 'fetch'} {name}"
        try:
            require_embedded(name, path) if name in NAMES else require_fetched(name, data_folder())
            yield Finding(f"data={name}", "ok", str(path))
        except UsageError as error:
            there = path.exists()
            yield Finding(
                f"data={name}", "bad" if there else "absent", str(error) if there else "not here", f"`{command}`"
            )


def _extras() -> Iterator[Finding]:
    for extra in ("slurm", "ray"):
        for line in metadata.requires("drrepro") or []:
            requirement = Requirement(line)
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
                found = _installed(requirement, "absent", f"pip install 'drrepro[{extra}]'")
                yield Finding(f"launcher={extra}", found.state, f"{requirement.name} {found.found}", found.remedy)


def _compiler() -> Finding:
    path = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)
    if path is None:
        return Finding("runtime.compile", "absent", "no C++ compiler", "install one, or leave runtime.compile=false")
    return Finding("runtime.compile", "ok", str(Path(path)))
