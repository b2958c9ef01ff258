"""Find conf/, compose it with overrides into a validated Config, and name the run. Only this file knows Hydra."""

import dataclasses
import difflib
import hashlib
import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from drrepro.data.embedded import MANIFEST, read_manifest
from drrepro.errors import UsageError
from drrepro.identity import digest
from drrepro.migrations import migrate_config
from drrepro.schema import Config, LossConfig, ScheduleConfig


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
    from drrepro.losses.named import BASELINE

    config = _compose(overrides, config_dir)
    if config.loss_only:
        others = [override for override in overrides if not override.startswith(("loss=", "loss."))]
        baseline = _compose([f"loss={BASELINE}", *others], config_dir)
        config = dataclasses.replace(
            config, model=baseline.model, matcher=baseline.matcher, evaluation=baseline.evaluation
        )
    _scale_schedule(config.schedule, overrides)
    _locate(config)
    return config


def _compose(overrides: list[str], config_dir: Path | None) -> Config:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema = OmegaConf.structured(Config)
    schema.loss = dataclasses.asdict(LossConfig())  # open: each loss has keys of its own
    ConfigStore.instance().store(name="schema", node=schema)
    make_importable(config_dir)
    search = [f"hydra.searchpath=[{json.dumps(f'file://{folder.resolve()}')}]" for folder in [config_dir] if folder]
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            composed = hydra_compose("config", [*overrides, *search])
        return _as_config(OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error, overrides)) from error


def make_importable(config_dir: Path | None) -> None:
    """Let names such as ``loss._target_`` find modules in ``config_dir``, here and in the processes of runs.

    Raises UsageError for what is no folder.
    """
    if config_dir is None:
        return
    if not config_dir.is_dir():
        raise UsageError(f"--config-dir {config_dir}: not a folder")
    folder = config_dir.resolve()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(folder))))


def _as_config(content: Any) -> Config:
    """Return plain data as a validated Config, the loss in the class that it takes its parameters in."""
    from omegaconf import OmegaConf

    from drrepro.evaluation.evaluators import evaluator_of
    from drrepro.losses.named import build_loss, loss_class

    own = content.get("loss", {})
    if not isinstance(own, dict):
        raise UsageError(f"loss={own}: needs a name and parameters")
    given = {**dataclasses.asdict(LossConfig()), **own}
    parameters = loss_class(given["name"], given.get("_target_")).Parameters
    known = [item.name for item in dataclasses.fields(parameters)]
    for key in given:
        if key not in known:
            raise UsageError(f"loss.{key}: no parameter of loss={given['name']}; it takes {', '.join(known[2:])}")
    loss = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(parameters), given))
    rest = {key: value for key, value in content.items() if key != "loss"}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), rest))
    assert isinstance(config, Config)
    assert isinstance(loss, LossConfig)
    build_loss(loss)  # which validates the parameters
    evaluator_of(config)
    config.loss = loss
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
    from omegaconf import OmegaConf

    composed = to_dict(compose(overrides, config_dir))
    content = to_dict(trained)
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key == "data":
            content["data"] = composed["data"]
        elif key == "weights" or key.startswith(
            ("data.", "evaluation.", "matcher.", "input.", "runtime.", "launcher.", "tracker.")
        ):
            value = OmegaConf.select(OmegaConf.create(composed), key)
            content = OmegaConf.to_container(OmegaConf.merge(content, _nested(key, value)))  # type: ignore[assignment]
        else:
            raise UsageError(f"{override}: settled by the trained weights; evaluate takes data and evaluation keys")
    content["schedule"]["steps"] = 0
    content["weights_sha256"] = None
    return from_dict(content, Path(trained.weights))


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def expand(overrides: list[str]) -> list[list[str]]:
    """Return the product of overrides with several values, such as ``seed=0,1`` or ``seed=range(0,3)``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    axes: list[list[str]] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise UsageError(_explain(error, [text])) from error
        if override.is_sweep_override():
            axes.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([text])
    return [list(point) for point in itertools.product(*axes)]


def from_dict(content: dict[str, Any], source: Path) -> Config:
    """Return the Config of a record or a run folder. Raises UsageError for one of another version."""
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(content, dict):
        raise UsageError(f"{source}: no configuration; move the folder away")
    try:
        return _as_config(migrate_config(content))
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        raise UsageError(f"{source}: written by another version of drrepro ({line}); move the folder away") from error


def load_config(path: Path) -> Config:
    """Return the Config of a run folder's config.yaml. Raises UsageError when it cannot be read."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

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


def _explain(error: Exception, overrides: list[str]) -> str:
    """Say in one line which override is wrong and what was probably meant."""
    text = str(error)
    if option := re.search(
        r"Could not find '([^']+)'\s+Available options in '([^']+)':\s+(.*)\sConfig search", text, re.DOTALL
    ):
        return f"{option[2]}={option[1].split('/')[-1]}: no such option; choose from {', '.join(option[3].split())}"
    if key := re.search(r"Could not (?:override|append) '([^'@]+)|Key '([^']+)' not in 'Config'", text):
        name = key[1] or key[2]
        close = difflib.get_close_matches(name, _all_keys(), n=1)
        return f"{name}: no such key; " + (
            f"did you mean {close[0]}?" if close else "the keys are in drrepro/schema.py"
        )
    reason = (
        str(error.__cause__ or error)
        .splitlines()[0]
        .removesuffix(" See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details")
    )
    culprit = [override for override in overrides if override in text] or overrides
    return f"{' '.join(culprit)}: {reason}"


def _all_keys() -> list[str]:
    content = to_dict(Config())
    return [f"{k}.{s}" for k, v in content.items() if isinstance(v, dict) for s in v] + list(content)
