"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks._base import DEFAULT_STRENGTHS, Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import BALLS, respond
from tdsnn.errors import UsageError
from tdsnn.tasks._base import Task

__all__ = ["PGD"]


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Gradient ascent from random starts (Madry et al., 2018, arXiv:1706.06083).

    ``x_{k+1} = project(x_k + step * steepest(grad CE(x_k)))`` onto the ball and [0, 1]. The steepest
    direction is the sign of the gradient in Linf and the gradient divided by its length in L2. Starts are
    uniform in the ball. Any misclassified iterate counts, a start included. Ten steps of eps / 4 let an
    iterate cross the ball.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = DEFAULT_STRENGTHS

    steps: Annotated[int, Meta(ge=1, le=100_000)] = 10
    """Gradient evaluations of each start."""
    step_fraction: Annotated[float, Meta(gt=0, le=10)] = 0.25
    """Step size as a fraction of eps."""
    random_start: bool = True
    restarts: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Starts; those after the first are for samples that still stand, so more of them never fool fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise UsageError(
                f"The {self.restarts} restarts of {self.name} would all be the same without a random start.",
                hint="Leave out random_start=false, or restarts.",
            )

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: float,
        norm: str | None,
        task: Task,
        generator: SampleDraws,
    ) -> Tensor:
        """Ascend from each start until misclassified or out of steps; see :meth:`Attack.run`."""
        assert norm is not None
        found = x.clone()
        standing = torch.arange(len(x), device=x.device)
        for restart in range(self.restarts):
            if restart:
                scores = task.score(respond(model, found[standing]), y[standing])
                standing = standing[scores > task.floor]
                if not len(standing):
                    break
            # Drawn for all, so that a sample's later starts do not depend on which others still stand.
            start = self._start(x, eps=eps, norm=norm, generator=generator)[standing]
            found[standing] = BALLS[norm].ascend(
                model,
                x[standing],
                y[standing],
                task=task,
                start=start,
                eps=eps,
                step_size=self.step_fraction * eps,
                steps=self.steps,
            )
        return found

    def _start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        return torch.clamp(x + eps * BALLS[norm].draw(generator, x), 0, 1) if self.random_start else x
