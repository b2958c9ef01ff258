"""Which class a configuration's loss is."""

from importlib import import_module

from drrepro.errors import UsageError
from drrepro.losses.contract import ClassificationLoss
from drrepro.losses.dr import DRLoss
from drrepro.losses.focal import BalancedCrossEntropy, FocalLoss
from drrepro.losses.ghm import GHMCLoss
from drrepro.losses.quality import QualityFocalLoss, VarifocalLoss
from drrepro.losses.ranked import APLoss, RankSortLoss
from drrepro.schema import LossConfig

LOSSES: dict[str, type[ClassificationLoss]] = {
    "dr": DRLoss,
    "focal": FocalLoss,
    "balanced_ce": BalancedCrossEntropy,
    "ghm_c": GHMCLoss,
    "quality_focal": QualityFocalLoss,
    "varifocal": VarifocalLoss,
    "ap": APLoss,
    "rank_sort": RankSortLoss,
}
DEFAULT = "dr"
BASELINE = "focal"  # whose prior, matcher and thresholds ``loss_only`` keeps


def loss_class(name: str, target: str | None) -> type[ClassificationLoss]:
    """Return the class of a loss: ``target``, as in package.module.Class, or the one of this name.

    Raises UsageError, naming the key, where there is none.
    """
    if target is None:
        if name not in LOSSES:
            known = ", ".join(LOSSES)
            raise UsageError(f"loss.name={name}: must be one of {known}, or loss._target_ give the class of another")
        return LOSSES[name]
    module, _, attribute = str(target).rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # the file of somebody else raises whatever it likes
        raise UsageError(
            f"loss._target_={target}: {error}; its file must lie in --config-dir or on PYTHONPATH"
        ) from None
    if not (isinstance(found, type) and issubclass(found, ClassificationLoss)):
        raise UsageError(f"loss._target_={target}: is no subclass of drrepro.losses.ClassificationLoss")
    return found


def build_loss(config: LossConfig) -> ClassificationLoss:
    """Return the loss of a configuration. Raises UsageError, naming the key, for a parameter out of range."""
    try:
        return loss_class(config.name, config._target_).build(config)
    except TypeError as error:
        raise UsageError(f"loss={config.name}: {error}; its constructor takes what its Parameters add") from None
    except ValueError as error:
        name, _, rule = str(error).partition(" ")
        value = getattr(config, name, "")
        raise UsageError(f"loss.{name}={value}: {rule.partition(', got')[0]}") from None
