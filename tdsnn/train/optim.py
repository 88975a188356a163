"""Optimiser, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tdsnn.types import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or Nesterov SGD; biases and normalisation weights are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, recipe: Recipe, epochs_done: float) -> float:
    """Set the rate of :func:`learning_rate` and return it."""
    lr = learning_rate(recipe, epochs_done)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def learning_rate(recipe: Recipe, epochs_done: float) -> float:
    """Linear warm-up, then a cosine to zero (arXiv:1608.03983, without restarts)."""
    if epochs_done < recipe.warmup_epochs:
        return recipe.lr * epochs_done / recipe.warmup_epochs
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.lr * (1 + math.cos(math.pi * min((epochs_done - recipe.warmup_epochs) / span, 1.0))) / 2


class Average:
    """Exponential moving average of parameters and buffers, with the usual start-up correction.

    Early on the decay is (1 + n) / (10 + n), so that the first steps are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values: dict[str, Tensor] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's current values."""
        self.steps += 1
        weight = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, weight)
            else:
                self.values[key].copy_(value)
