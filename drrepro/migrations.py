"""Records and configurations of earlier versions, brought to this one: a function a version."""

from collections.abc import Callable
from typing import Any

from drrepro.identity import FROZEN

SCHEMA = 2  # of a record
Content = dict[str, Any]


def migrate_config(config: Content) -> Content:
    """Return a configuration without the parameters of the other losses, which it had in version 1."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or loss.get("name") not in FROZEN["losses"]:
        return config
    others = {key for name, keys in FROZEN["losses"].items() if name != loss["name"] for key in keys}
    return {**config, "loss": {key: value for key, value in loss.items() if key not in others}}


def _from_1(record: Content) -> Content:
    """No image was left out, and every configuration had the parameters of both losses."""
    data = {"dropped_images": {}, **record["data"]}
    return {**record, "schema": 2, "config": migrate_config(record["config"]), "data": data}


MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: _from_1}


def migrate(record: Content) -> Content:
    """Return a record of schema 1 or later as one of this version."""
    while record["schema"] < SCHEMA:
        record = MIGRATIONS[record["schema"]](record)
    return record
