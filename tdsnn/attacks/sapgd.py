"""Stable adaptive PGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tdsnn.attacks._ascent import GradientAttack, Restarts, Steps
from tdsnn.attacks._auto_pgd import checkpoints
from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._base import DEFAULT_STRENGTHS
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._objective import Objective

__all__ = ["SAPGD"]

MOMENTUM, SQUARE_DECAY = 0.5, 0.8


@dataclass(frozen=True, kw_only=True)
class SAPGD(GradientAttack):
    """Ascent along a running mean of gradients, each pixel scaled by its own (Wang et al., arXiv:2512.22522).

    Gradients g are divided by the mean of their magnitudes, their squares by the mean square; with
    ``m <- 0.5 m + g`` and ``v <- 0.8 v + g^2`` a step is ``m / sqrt(v)`` times the step size and at most
    that. It begins at eps and is halved at the checkpoints of Auto-PGD. Starts are uniform in the ball. Any
    misclassified iterate counts. The paper pairs it with ``surrogate=assg-0.425``.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {"linf": DEFAULT_STRENGTHS["linf"]}

    steps: Steps = 100
    """Gradient evaluations of each start."""
    restarts: Restarts = 1
    """Starts through each surrogate."""

    def starts(self) -> int:
        """The restarts."""
        return self.restarts

    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """Uniform in the ball."""
        return torch.clamp(x + eps * BALLS[norm].draw(generator, x), 0, 1)

    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """Ascend until misclassified or out of steps; see :meth:`GradientAttack.search`."""
        kept, step_size, due = start.clone(), eps, dict(checkpoints(self.steps))
        mean, square = torch.zeros_like(start), torch.zeros_like(start)
        active = torch.arange(len(start), device=start.device)
        for step in range(self.steps):
            points = kept[active]
            outputs, gradient = objective.gradient(points)
            standing = objective.go_on(points, outputs)
            if not len(standing):
                break
            if len(standing) < len(active):
                active, points, gradient = active[standing], points[standing], gradient[standing]
                mean, square = mean[standing], square[standing]
            if step in due:
                step_size /= 2
            gradient = _by_mean(gradient, gradient.abs())
            mean = MOMENTUM * mean + gradient
            square = SQUARE_DECAY * square + _by_mean(gradient.square(), gradient.square())
            scaled = mean / square.sqrt().clamp(min=torch.finfo(square.dtype).tiny)
            moved = points + step_size * scaled.clamp(-1, 1)
            kept[active] = BALLS[norm].project(moved, objective.x, eps)
        return kept


def _by_mean(values: Tensor, sizes: Tensor) -> Tensor:
    """``values`` divided by the mean of ``sizes`` in each sample; a sample of zeros stays one."""
    mean = sizes.mean((1, 2, 3), keepdim=True)
    return values / torch.where(mean > 0, mean, 1.0)
