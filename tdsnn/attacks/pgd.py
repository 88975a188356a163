"""Projected gradient descent in the Linf ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import ascend_linf
from tdsnn.errors import UsageError

__all__ = ["PGD"]


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Signed gradient ascent from a uniform random start (Madry et al., 2018, arXiv:1706.06083).

    ``x_{k+1} = clip(x_k + step * sign(grad CE(x_k)))`` onto the ball and [0, 1]. Any misclassified iterate
    counts, the start included. Ten steps of eps / 4 let an iterate cross the ball.
    """

    steps: int = 10
    """Gradient evaluations, at least 1."""
    step_fraction: float = 0.25
    """Step size as a fraction of eps, above 0."""
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"PGD needs at least 1 step, not {self.steps}.")
        if not self.step_fraction > 0:
            raise UsageError(f"The step fraction of PGD must be above 0, not {self.step_fraction:g}.")

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str | None, generator: SampleDraws
    ) -> Tensor:
        """Ascend from the start until misclassified or out of steps; see :meth:`Attack.run`."""
        start = torch.clamp(x + eps * generator.uniform(x), 0, 1) if self.random_start else x
        return ascend_linf(
            model, x, y, start=start, eps=eps, step_size=self.step_fraction * eps, steps=self.steps
        )
