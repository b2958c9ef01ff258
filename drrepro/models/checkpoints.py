"""Weights from elsewhere: read without running any code of theirs, recognised by their names, translated to ours.

A state is a dict of tensors by name. Four layouts are known: ours; torchvision's ResNet classifiers (a backbone alone);
torchvision's retinanet_resnet50_fpn, whose old and new names differ; and maskrcnn-benchmark's RetinaNet [M].
"""

import contextlib
import io
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from drrepro.errors import UsageError
from drrepro.models.retinanet import RetinaNet
from drrepro.schema import Config

State = dict[str, Tensor]
Names = list[tuple[str, str]]  # (their prefix, ours); the first that fits counts

TORCHVISION_RESNET: Names = [("conv1.", "backbone.conv1."), ("bn1.", "backbone.bn1."), ("layer", "backbone.layer")]
TORCHVISION_RETINANET: Names = [
    ("backbone.body.", "backbone."),
    *((f"backbone.fpn.{k}_blocks.{i}.0.", f"fpn.{k}_blocks.{i}.0.") for k in ("inner", "layer") for i in range(3)),
    *((f"backbone.fpn.{k}_blocks.{i}.", f"fpn.{k}_blocks.{i}.0.") for k in ("inner", "layer") for i in range(3)),  # old
    ("backbone.fpn.extra_blocks.", "fpn.extra_blocks."),
    ("head.classification_head.cls_logits.", "classifier.final."),
    ("head.regression_head.bbox_reg.", "regressor.final."),
    *((f"head.classification_head.conv.{i}.0.", f"classifier.tower.{2 * i}.") for i in range(4)),
    *((f"head.regression_head.conv.{i}.0.", f"regressor.tower.{2 * i}.") for i in range(4)),
    ("head.classification_head.conv.", "classifier.tower."),  # old
    ("head.regression_head.conv.", "regressor.tower."),
]
MASKRCNN_BENCHMARK: Names = [
    ("backbone.body.stem.conv1.", "backbone.conv1."),
    ("backbone.body.stem.bn1.", "backbone.bn1."),
    ("backbone.body.layer", "backbone.layer"),
    *((f"backbone.fpn.fpn_{k}{i + 2}.", f"fpn.{k}_blocks.{i}.0.") for k in ("inner", "layer") for i in range(3)),
    ("backbone.fpn.top_blocks.", "fpn.extra_blocks."),
    ("rpn.head.cls_tower.", "classifier.tower."),
    ("rpn.head.cls_logits.", "classifier.final."),
    ("rpn.head.bbox_tower.", "regressor.tower."),
    ("rpn.head.bbox_pred.", "regressor.final."),
]


def from_maskrcnn_benchmark(state: State) -> State:
    """Translate to our names. Its batch norm has no eps: the same model here has ``model.norm_eps=0``."""
    return _rename({n: t for n, t in state.items() if not n.startswith("rpn.anchor_generator.")}, MASKRCNN_BENCHMARK)


def to_maskrcnn_benchmark(state: State) -> State:
    """Invert `from_maskrcnn_benchmark`."""
    return _rename(state, [(ours, theirs) for theirs, ours in MASKRCNN_BENCHMARK])


def from_torchvision(state: State, category_ids: list[int]) -> State:
    """Translate a ResNet, without its classifier, or a RetinaNet, keeping the outputs of the data set's K categories.

    torchvision's COCO detector has an output for each category id, 0 to 90, used or not; so output ``id`` is taken for
    each of ``category_ids``. Raises UsageError when the detector has no such output.
    """
    if "conv1.weight" in state:
        return _rename({n: t for n, t in state.items() if not n.startswith("fc.")}, TORCHVISION_RESNET)
    renamed = _rename(state, TORCHVISION_RETINANET)
    for name in ("classifier.final.weight", "classifier.final.bias"):
        if name in renamed and "regressor.final.bias" in renamed:
            anchors = len(renamed["regressor.final.bias"]) // 4  # of a cell
            by_anchor = renamed[name].reshape(anchors, -1, *renamed[name].shape[1:])  # (anchors, outputs, ...)
            outputs = by_anchor.shape[1]
            if not set(category_ids) <= set(range(outputs)):
                largest = max(category_ids)
                raise UsageError(f"has outputs for category ids below {outputs}, the data set has ids up to {largest}")
            renamed[name] = by_anchor[:, category_ids].flatten(0, 1)
    return renamed


def read_state(path: Path) -> State:
    """Return the tensors of a file by name, out of {"model": ...} and without the prefix "module.".

    Raises UsageError for whatever is not a dict of tensors written by torch.save; nothing else is ever unpickled.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path}: not tensors alone (Detectron's .pkl are not), so that opening it could run code; "
            "where you trust it, save its tensors with torch.save"
        ) from None
    except Exception as error:  # torch.load raises whatever the damaged bytes make it raise
        raise UsageError(f"{path}: damaged or not written by torch.save ({_first_line(error)})") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UsageError(f"{path}: holds no weights, which are a dict of tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def imagenet_state(backbone: str) -> State:
    """Return torchvision's first ImageNet weights of a ResNet, from torch.hub's cache or its download.

    Raises UsageError, naming the file and its address, when there is no way to it.
    """
    entry = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch.hub announces a download where results belong
            state: State = entry.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, another hash, or whatever the damaged bytes of a cached file raise
        name = entry.url.rsplit("/", 1)[-1]
        raise UsageError(
            f"weights=imagenet: {name} cannot be had ({_first_line(error)}); get it from {entry.url} elsewhere and "
            "give weights=PATH"
        ) from None
    return state


def load_weights(model: RetinaNet, config: Config, path: Path, category_ids: list[int]) -> None:
    """Load ``config.weights``, whose file is at ``path``, into ``model``, which detects the K ``category_ids``.

    Raises UsageError, naming the file, when it cannot be read or fits another model, and for a backbone alone that
    nothing would train.
    """
    if config.weights == "imagenet":
        source, state = "weights=imagenet", imagenet_state(config.model.backbone)
    else:
        source, state = str(path), read_state(path)
    try:
        translated = _translate(state, config.model.convention, category_ids)
        _check(translated, model, config.schedule.steps)
        model.load_state_dict(translated, strict=False)
    except (UsageError, RuntimeError, TypeError) as error:  # the latter two of tensors without sense
        raise UsageError(f"{source}: {_first_line(error)}") from None


def _translate(state: State, convention: str, category_ids: list[int]) -> State:
    """Return the state in our names, whichever layout it has; refuse a detector of another convention."""
    if "backbone.body.stem.conv1.weight" in state:
        theirs, translated = "maskrcnn_benchmark", from_maskrcnn_benchmark(state)
    elif "backbone.body.conv1.weight" in state:
        theirs, translated = "torchvision", from_torchvision(state, category_ids)
    elif "conv1.weight" in state:
        return from_torchvision(state, category_ids)
    elif "classifier.final.weight" in state:
        return state
    else:
        first = next(iter(state), "nothing")
        raise UsageError(f"of no known layout: torchvision's, maskrcnn-benchmark's or ours (it begins with {first})")
    if theirs != convention:
        raise UsageError(f"weights of a detector with model.convention={theirs}, not {convention}")
    return translated


def _check(state: State, model: RetinaNet, steps: int) -> None:
    """Raise UsageError for tensors that miss, that the model has not, or of another shape."""
    needed = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    if all(name.startswith("backbone.") for name in state):
        if not steps:
            raise UsageError("a backbone alone, and schedule.steps=0 would never train its head")
        needed = {name: tensor for name, tensor in needed.items() if name.startswith("backbone.")}
    wrong = {
        "missing": needed.keys() - state.keys(),
        "unexpected": {name for name in state if name not in needed and not name.endswith("num_batches_tracked")},
        "of another shape": {n for n in needed.keys() & state.keys() if needed[n].shape != state[n].shape},
    }
    heads = {"classifier.final.weight", "classifier.final.bias"}
    if wrong["of another shape"] == heads and not wrong["missing"] | wrong["unexpected"]:
        known, asked = (len(s["classifier.final.bias"]) // model.anchors.per_cell for s in (state, needed))
        raise UsageError(f"detects {known} classes, the data set has {asked}")
    for what, names in wrong.items():
        if names:
            first = min(names)
            shapes = f" ({_shape(state[first])}, the model's is {_shape(needed[first])})" if "shape" in what else ""
            raise UsageError(f"weights of another model: {len(names)} tensors {what}, the first is {first}{shapes}")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _rename(state: State, names: Iterable[tuple[str, str]]) -> State:
    """Replace the prefix of each name; a name without a known one stays, to be reported as unexpected."""

    def renamed(name: str) -> str:
        """Return the name with its prefix replaced."""
        return next((new + name.removeprefix(old) for old, new in names if name.startswith(old)), name)

    return {renamed(name): tensor for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
