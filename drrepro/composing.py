"""Compose conf/ with overrides into a validated Config: only this file knows Hydra."""

import dataclasses
import difflib
import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from drrepro.errors import UsageError
from drrepro.evaluation.evaluators import evaluator_of
from drrepro.losses.named import DEFAULT, build_loss, loss_class
from drrepro.schema import Config, LossConfig


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


def compose_config(overrides: list[str], folder: Path, config_dir: Path | None) -> Config:
    """Compose ``folder``/config.yaml, and the options under ``config_dir``, with overrides into a validated Config.

    Raises UsageError, in one line, for anything that does not compose or validate.
    """
    schema = OmegaConf.structured(Config)
    schema.loss = dataclasses.asdict(LossConfig())  # open: each loss has keys of its own
    ConfigStore.instance().store(name="schema", node=schema)
    make_importable(config_dir)
    search = [f"hydra.searchpath=[{json.dumps(f'file://{own.resolve()}')}]" for own in [config_dir] if own]
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            composed = hydra_compose("config", [*overrides, *search])
        return as_config(OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error, overrides)) from error


def as_config(content: Any) -> Config:
    """Return plain data as a validated Config, the loss in the class that it takes its parameters in.

    Raises UsageError or OmegaConf's exceptions for what is none.
    """

    own = content.get("loss", {})
    if not isinstance(own, dict):
        raise UsageError(f"loss={own}: needs a name and parameters")
    given = {**dataclasses.asdict(LossConfig()), "name": DEFAULT, **own}
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


def expand(overrides: list[str]) -> list[list[str]]:
    """Return the product of overrides with several values, such as ``seed=0,1`` or ``seed=range(0,3)``."""

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
        return f"{name}: no such key; " + (f"did you mean {close[0]}?" if close else "the keys are in drrepro/schema")
    reason = (
        str(error.__cause__ or error)
        .splitlines()[0]
        .removesuffix(" See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details")
    )
    culprit = [override for override in overrides if override in text] or overrides
    return f"{' '.join(culprit)}: {reason}"


def _all_keys() -> list[str]:
    content = dataclasses.asdict(Config())
    return [f"{k}.{s}" for k, v in content.items() if isinstance(v, dict) for s in v] + list(content)
