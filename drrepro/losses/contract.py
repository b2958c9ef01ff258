"""What a classification loss is to the training loop; `drrepro.losses.named` finds the class of a configuration.

A loss of one's own is a file with a subclass of `ClassificationLoss` and a yaml under ``--config-dir`` that gives the
class as ``loss._target_``, and its parameters beside it.
"""

from dataclasses import fields
from typing import ClassVar, Self

from torch import Tensor, nn

from drrepro.schema import LossConfig


class ClassificationLoss(nn.Module):
    """``loss(logits, labels) -> scalar``, whose constructor takes the parameters that ``Parameters`` adds.

    The constructor raises ValueError for one out of range; its message begins with the parameter's name.
    """

    Parameters: ClassVar[type[LossConfig]] = LossConfig  # their names, types and defaults: the keys of loss.
    needs_ious: ClassVar[bool] = False  # whether forward also takes ``ious`` (B, A): of predicted and matched boxes

    @classmethod
    def build(cls, config: LossConfig) -> Self:
        """Return the loss with the parameters of ``config``, which is one of ``Parameters``."""
        common = {item.name for item in fields(LossConfig)}
        return cls(**{item.name: getattr(config, item.name) for item in fields(config) if item.name not in common})

    def share(self, logits: Tensor, labels: Tensor, positives: Tensor, parts: int, **beside: Tensor) -> Tensor:
        """Return a part's share of a step's loss: the shares of all ``parts``, equally large, add up to it.

        ``positives``, a scalar, are those of all parts. Here the step's loss is the mean over its parts; a loss that is
        divided by something that is counted over all of them says so by overriding this.
        """
        return self(logits, labels, **beside) / parts  # type: ignore[no-any-return]
