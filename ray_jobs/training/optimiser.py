"""How weights move: fused AdamW, linear warm-up, then a schedule, usually down to nothing.

A module may offer `parameter_groups(weight_decay) -> list[dict]`, as AdamW takes
them, where some weights (say, those of items) want a decay of their own.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from ray_jobs.recipe import Budget


def optimiser(module: nn.Module, budget: Budget) -> Optimizer:
    """AdamW over a module's parameters, the fused kernel on every device."""
    groups = parameter_groups(module, budget.weight_decay)
    return AdamW(groups, lr=budget.learning_rate, fused=True)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The module's own groups, or: matrices decay, biases, norms and single numbers do not."""
    own = getattr(module, "parameter_groups", None)
    if own is not None:
        groups: list[dict[str, Any]] = own(weight_decay)
        return groups
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(budget: Budget, progress: float) -> float:
    """The rate at a point of training, `progress` being epochs done, such as 1.25."""
    if progress < budget.warmup_epochs:
        return budget.learning_rate * progress / budget.warmup_epochs
    left = max(budget.epochs - budget.warmup_epochs, 1e-9)
    done = min((progress - budget.warmup_epochs) / left, 1.0)
    factor = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return budget.learning_rate * factor[budget.schedule]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set one rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
