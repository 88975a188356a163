"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from tdsnn.attacks._ascent import GradientAttack, Restarts, Steps
from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._objective import Objective
from tdsnn.errors import UsageError

__all__ = ["PGD"]


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Gradient ascent from random starts (Madry et al., 2018, arXiv:1706.06083).

    ``x_{k+1} = project(x_k + step * steepest(grad CE(x_k)))`` onto the ball and [0, 1]. The steepest
    direction is the sign of the gradient in Linf and the gradient divided by its length in L2. Starts are
    uniform in the ball. Any misclassified iterate counts, a start included. Ten steps of eps / 4 let an
    iterate cross the ball.
    """

    steps: Steps = 10
    """Gradient evaluations of each start."""
    step_fraction: Annotated[float, Meta(gt=0, le=10)] = 0.25
    """Step size as a fraction of eps."""
    random_start: bool = True
    restarts: Restarts = 1
    """Starts through each surrogate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise UsageError(
                f"The {self.restarts} restarts of {self.name} would all be the same without a random start.",
                hint="Leave out random_start=false, or restarts.",
            )

    def starts(self) -> int:
        """The restarts."""
        return self.restarts

    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """Uniform in the ball."""
        return torch.clamp(x + eps * BALLS[norm].draw(generator, x), 0, 1) if self.random_start else x

    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """Ascend until misclassified or out of steps; see :meth:`GradientAttack.search`."""
        ball, kept = BALLS[norm], start.clone()
        active = torch.arange(len(start), device=start.device)
        for _ in range(self.steps):
            points = kept[active]
            outputs, gradient = objective.gradient(points)
            standing = objective.go_on(points, outputs)
            if not len(standing):
                break
            if len(standing) < len(active):
                active, points, gradient = active[standing], points[standing], gradient[standing]
            moved = points + self.step_fraction * eps * ball.steepest(gradient)
            kept[active] = ball.project(moved, objective.x, eps)
        return kept
