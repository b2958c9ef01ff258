"""Find conf/, compose it with overrides into a validated Config, and name the run."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from drrepro.composing import as_config, compose_config
from drrepro.data.embedded import MANIFEST, read_manifest
from drrepro.errors import UsageError
from drrepro.identity import digest
from drrepro.losses.named import BASELINE
from drrepro.migrations import migrate_config
from drrepro.schema import Config, ScheduleConfig


def config_folder() -> Path:
    """Return conf/ of the checkout, or the copy inside the installed package."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UsageError(f"{package / 'conf'}: the configuration is missing; install drrepro again")


def options(group: str) -> list[str]:
    """Return the options of a group, such as data."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def data_folder() -> Path:
    """Return $DRREPRO_DATA, by default ./data."""
    return Path(os.environ.get("DRREPRO_DATA", "data"))


def runs_folder() -> Path:
    """Return $DRREPRO_RUNS, by default ./runs."""
    return Path(os.environ.get("DRREPRO_RUNS", "runs"))


def compose(overrides: list[str], config_dir: Path | None = None) -> Config:
    """Compose conf/config.yaml with Hydra overrides such as ``loss=focal schedule.steps=100``.

    ``config_dir`` is a folder of further options, laid out like conf/. Raises UsageError, in one line, for anything
    that does not compose or validate.
    """
    config = compose_config(overrides, config_folder(), config_dir)
    if config.loss_only:
        others = [override for override in overrides if not override.startswith(("loss=", "loss."))]
        baseline = compose_config([f"loss={BASELINE}", *others], config_folder(), config_dir)
        config = dataclasses.replace(
            config, model=baseline.model, matcher=baseline.matcher, evaluation=baseline.evaluation
        )
    _scale_schedule(config.schedule, overrides)
    _locate(config)
    return config


def _scale_schedule(schedule: ScheduleConfig, overrides: list[str]) -> None:
    """Fit the recipe to another number of images per step [M]: rate times r, iterations by r; warm-up stays."""
    if schedule.recipe_images in (None, schedule.images_per_step):
        return
    ratio = schedule.images_per_step / schedule.recipe_images
    given = {override.lstrip("+").split("=")[0] for override in overrides}
    if "schedule.lr" not in given:
        schedule.lr *= ratio
    if "schedule.steps" not in given:
        schedule.steps = round(schedule.steps / ratio)
    if "schedule.milestones" not in given:
        schedule.milestones = [round(milestone / ratio) for milestone in schedule.milestones]


def scaling_note(schedule: ScheduleConfig) -> str | None:
    """Return what to say of a schedule with other images per step than its recipe's, None where they are the same."""
    if schedule.recipe_images in (None, schedule.images_per_step):
        return None
    return (
        f"{schedule.images_per_step} images a step, not the recipe's {schedule.recipe_images}: "
        f"lr {schedule.lr:g}, {schedule.steps} steps, milestones {schedule.milestones}"
    )


def _locate(config: Config) -> None:
    """Make the folder of somebody's data and weights absolute; note what an embedded set and the weights consist of."""
    data = config.data
    if has_weights_file(config):
        path = Path(config.weights).expanduser().resolve()
        config.weights, config.weights_sha256 = str(path), _sha256(path) if path.is_file() else None
    if data.embedded:
        root = data_folder() / data.name
        data.sha256 = read_manifest(root)["sha256"] if (root / MANIFEST).is_file() else None
    elif data.root is not None:
        data.root = str(Path(data.root).expanduser().resolve())


def has_weights_file(config: Config) -> bool:
    """Say whether ``weights`` is the path of a file."""
    return config.weights not in ("none", "imagenet") and not config.weights.startswith("run:")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"weights={path}: not readable ({error.strerror})") from None


def for_evaluation(trained: Config, overrides: list[str], config_dir: Path | None = None) -> Config:
    """Return the configuration that only evaluates a trained run: its own, but for data and evaluation keys.

    Raises UsageError for overrides of anything that the weights have settled.
    """

    composed = to_dict(compose(overrides, config_dir))
    content = to_dict(trained)
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key in ("data", "launcher", "tracker"):
            content[key] = composed[key]
        elif key == "weights" or key.startswith(
            ("data.", "evaluation.", "matcher.", "input.", "runtime.", "launcher.", "tracker.")
        ):
            _copy(composed, content, key.split("."))
        else:
            raise UsageError(f"{override}: settled by the trained weights; evaluate takes data and evaluation keys")
    content["schedule"]["steps"] = 0
    content["weights_sha256"] = None
    return from_dict(content, Path(trained.weights))


def _copy(source: dict[str, Any], target: dict[str, Any], way: list[str]) -> None:
    """Set what lies at the end of ``way`` in ``target`` to what lies there in ``source``."""
    *sections, key = way
    for section in sections:
        source, target = source[section], target[section]
    target[key] = source[key]


def from_dict(content: dict[str, Any], source: Path) -> Config:
    """Return the Config of a record or a run folder. Raises UsageError for one of another version."""

    if not isinstance(content, dict):
        raise UsageError(f"{source}: no configuration; move the folder away")
    try:
        return as_config(migrate_config(content))
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{source}: written by another version of drrepro ({line}); move the folder away") from error


def load_config(path: Path) -> Config:
    """Return the Config of a run folder's config.yaml. Raises UsageError when it cannot be read."""

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{path}: not a readable configuration ({str(error).splitlines()[0]})") from None
    return from_dict(content, path)  # type: ignore[arg-type]


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as plain dictionaries, lists and scalars."""
    return dataclasses.asdict(config)


def run_id(config: Config) -> str:
    """Return <data>-<loss>-<scale>-s<seed>-<8 hex of the sha256 of all that shapes its result>."""
    own = digest(to_dict(config), _defaults(config))
    return f"{config.data.name}-{config.loss.name}-{config.input.scale}-s{config.seed}-{own}"


def _defaults(section: Any) -> dict[str, Any]:
    """Return what every key of a section, of whatever class, has if it is not set."""
    found = dataclasses.asdict(type(section)())
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            found[item.name] = _defaults(value)
    return found
