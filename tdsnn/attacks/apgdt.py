"""Targeted Auto-PGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks._ascent import GradientAttack, Steps
from tdsnn.attacks._auto_pgd import climb
from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import respond
from tdsnn.attacks._losses import targeted_dlr
from tdsnn.attacks._objective import Objective
from tdsnn.kernels.surrogates import Surrogate
from tdsnn.tasks._base import Task

__all__ = ["APGDT"]


@dataclass(frozen=True, kw_only=True)
class APGDT(GradientAttack):
    """Auto-PGD towards one other class after the other (Croce and Hein, 2020, arXiv:2003.01690).

    The loss is the targeted difference of logits ratio. Classes come in the order of their logits without
    attack, the highest first; any wrong answer counts, whichever class it is.
    """

    steps: Steps = 100
    """Gradient evaluations for each class."""
    targets: Annotated[int, Meta(ge=1, le=1_000)] = 9
    """Classes that are tried; all others of a task that has fewer."""
    rho: Annotated[float, Meta(ge=0, le=1)] = 0.75
    """As of ``apgd``."""

    def objection(self, model: nn.Module, task: Task) -> str | None:
        if not task.chooses_class:
            return f"The attack {self.name} needs logits of classes, which this task does not have."
        return super().objection(model, task)

    def starts(self) -> int:
        """One for each target."""
        return self.targets

    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """On the surface of the ball."""
        return torch.clamp(x + eps * BALLS[norm].draw_edge(generator, x), 0, 1)

    def objective(
        self, model: nn.Module, x: Tensor, y: Tensor, *, task: Task, surrogate: Surrogate | None, turn: int
    ) -> Objective | None:
        """Towards the class that is number ``turn`` without attack, from 0 on, the true one left out."""
        others = respond(model, x).scatter(1, y[:, None], -torch.inf)
        if turn >= others.shape[1] - 1:
            return None
        target = others.argsort(dim=1, descending=True, stable=True)[:, turn]
        pairs = torch.stack([y, target], 1)
        return self.raising(model, x, y, task=task, surrogate=surrogate, loss=targeted_dlr, targets=pairs)

    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """One target; see :meth:`GradientAttack.search`."""
        return climb(objective, start, eps=eps, norm=norm, steps=self.steps, share=self.rho)
