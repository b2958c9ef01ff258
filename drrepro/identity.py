"""What makes a run another run: its configuration beside a frozen baseline, whose hash is in the run's id.

baseline.json has every key of version 1 with its default then, and which of loss. were whose. These keys count always,
and one that a configuration no longer has counts with its value there. A key that came later counts only where it is
not at its default: a new key changes no id. So the default of a later key is frozen too; to change one, freeze another
version of the baseline.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

Content = dict[str, Any]  # a configuration, or a section of one, as plain data

FROZEN: Content = json.loads((Path(__file__).parent / "baseline.json").read_text())
BASELINE: Content = FROZEN["keys"]
HOW = ("runtime", "launcher", "tracker", "loss_only")  # how a run is carried out, or what stands elsewhere too
INFORMATION = {"schedule": ("tuned_lr",)}


def digest(content: Content, defaults: Content) -> str:
    """Return 8 hex digits of what shapes a run's result; ``defaults`` has those of all keys."""
    counted = essence(content, defaults)
    if content["weights_sha256"] is not None:
        del counted["weights"]  # the file may lie elsewhere
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]


def essence(content: Content, defaults: Content) -> Content:
    """Return the keys that count, each with its value."""
    own = {key: value for key, value in content.items() if key not in HOW}
    for section, keys in INFORMATION.items():
        own[section] = {key: value for key, value in own[section].items() if key not in keys}
    return _counted(own, defaults, BASELINE)


def _counted(content: Content, defaults: Content, baseline: Content) -> Content:
    counted = {**baseline}
    for key, value in content.items():
        if isinstance(value, dict):
            section = _counted(value, defaults.get(key, {}), baseline.get(key, {}))
            if section or key in baseline:
                counted[key] = section
        elif key in baseline or key not in defaults or value != defaults[key]:
            counted[key] = value
    return counted
