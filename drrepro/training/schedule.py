"""Optimizer and learning rate."""

import math

import torch

from drrepro.models.retinanet import RetinaNet
from drrepro.schema import ScheduleConfig


def build_optimizer(model: RetinaNet, config: ScheduleConfig) -> torch.optim.Optimizer:
    """Return SGD or AdamW with the biases in a group of their own: another rate and decay [M]."""
    groups: list[dict[str, object]] = [
        {"params": [], "factor": 1.0, "weight_decay": config.weight_decay},
        {"params": [], "factor": config.bias_lr_factor, "weight_decay": config.bias_weight_decay},
    ]
    for is_bias, parameter in model.parameter_groups():
        groups[is_bias]["params"].append(parameter)  # type: ignore[attr-defined]
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
        for _, parameter in model.parameter_groups() if config.momentum else ():
            # torch 2.14 leaves it uninitialised where the first step is skipped, as float16's scaler may.
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def learning_rate(step: int, config: ScheduleConfig) -> float:
    """Return the rate of ``step``, from 0: linear warm-up, then constant between the milestones or half a cosine."""
    if step < config.warmup_steps:
        progress = step / config.warmup_steps
        warmup = config.warmup_factor + (1 - config.warmup_factor) * progress
    else:
        warmup = 1.0
    if config.decay == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    else:
        decay = config.decay_factor ** sum(step >= milestone for milestone in config.milestones)
    return config.lr * warmup * decay


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to ``rate`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
