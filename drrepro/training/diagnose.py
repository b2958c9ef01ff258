"""Once a step has failed: where the first number that is not finite stands."""

import torch
from torch import Tensor, nn

Hook = torch.utils.hooks.RemovableHandle


def first_not_finite(model: nn.Module, images: Tensor, precision: torch.dtype | None) -> str | None:
    """Name the first weight, output or gradient of ``model`` that is not finite; None where all are.

    Weights come first, since what they spoil follows from them, then the outputs for ``images`` (B, 3, H, W) in the
    order in which they are computed, then gradients, in the order of the backward pass: from the end of the network.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the parameter {name}"
    output = _first_output(model, images, precision)
    if output is not None:
        return f"the output of {output}"
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name}"
    return None


def _first_output(model: nn.Module, images: Tensor, precision: torch.dtype | None) -> str | None:
    found: list[str] = []
    hooks: list[Hook] = []
    for name, module in model.named_modules():
        if not list(module.children()):

            def look(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
                """Note the module if what it gives is not finite."""
                if isinstance(output, Tensor) and not _finite(output):
                    found.append(name)

            hooks.append(module.register_forward_hook(look))
    try:
        with torch.no_grad(), torch.autocast(images.device.type, precision, enabled=precision is not None):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
