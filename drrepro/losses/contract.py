"""What a classification loss is to the training loop; `drrepro.losses.named` finds the class of a configuration.

A loss of one's own is a file with a subclass of `ClassificationLoss` and a yaml under ``--config-dir`` that gives the
class as ``loss._target_``, and its parameters beside it.
"""

from dataclasses import dataclass, fields
from typing import ClassVar, Self

from torch import Tensor, nn

from drrepro.schema import LossConfig


@dataclass(frozen=True)
class Normalizer:
    """What is counted with each of the B images of a pass, to divide sums over them by.

    positives (B,) int64: in the images that it is counted with, itself among them, and images (B,), how many these are;
    parts: the step's loss is the mean over so many groups of such images.
    """

    positives: Tensor
    images: Tensor
    parts: int


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

    def share(self, logits: Tensor, labels: Tensor, normalizer: Normalizer, passes: int, **beside: Tensor) -> Tensor:
        """Return a pass's share of a step's loss: the shares of all ``passes``, equally large, add up to it.

        Here the step's loss is the mean over its passes; a loss that is divided by positives or images says so by
        overriding this.
        """
        return self(logits, labels, **beside) / passes  # type: ignore[no-any-return]
