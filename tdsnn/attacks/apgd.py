"""Auto-PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks._ascent import GradientAttack, Restarts, Steps
from tdsnn.attacks._auto_pgd import climb
from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._losses import dlr
from tdsnn.attacks._objective import Objective
from tdsnn.kernels.surrogates import Surrogate
from tdsnn.tasks._base import Task

__all__ = ["APGD"]


@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """PGD with momentum and a step size of its own for each sample (Croce and Hein, 2020, arXiv:2003.01690).

    Steps begin at 2 eps and are halved, with a return to the best point, where too few of them raised the
    loss. Starts are random points of the ball's surface, clipped to [0, 1]. Any misclassified iterate counts.
    """

    loss: Literal["ce", "dlr"] = "ce"
    """``ce``: the loss of the task, of a classifier the cross-entropy; ``dlr``: the difference of logits
    ratio."""
    steps: Steps = 100
    """Gradient evaluations of each start."""
    rho: Annotated[float, Meta(ge=0, le=1)] = 0.75
    """Share of the steps between two checkpoints that must raise the loss, lest the step be halved."""
    restarts: Restarts = 1
    """Starts through each surrogate."""

    def objection(self, model: nn.Module, task: Task) -> str | None:
        if self.loss == "dlr" and not task.chooses_class:
            return f"The loss dlr of {self.name} needs logits of classes, which this task does not have."
        return super().objection(model, task)

    def starts(self) -> int:
        """The restarts."""
        return self.restarts

    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """On the surface of the ball."""
        return torch.clamp(x + eps * BALLS[norm].draw_edge(generator, x), 0, 1)

    def objective(
        self, model: nn.Module, x: Tensor, y: Tensor, *, task: Task, surrogate: Surrogate | None, turn: int
    ) -> Objective | None:
        """The chosen loss."""
        loss = dlr if self.loss == "dlr" else None
        return self.raising(model, x, y, task=task, surrogate=surrogate, loss=loss)

    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """One start; see :meth:`GradientAttack.search`."""
        return climb(objective, start, eps=eps, norm=norm, steps=self.steps, share=self.rho)
