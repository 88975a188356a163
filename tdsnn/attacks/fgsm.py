"""Fast gradient sign method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tdsnn.attacks._base import DEFAULT_STRENGTHS, Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import BALLS
from tdsnn.tasks._base import Task

__all__ = ["FGSM"]


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One gradient step of length eps from the image (Goodfellow et al., 2015, arXiv:1412.6572).

    That is PGD with one step and no random start; in L2 the step follows the gradient, not its sign.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = DEFAULT_STRENGTHS

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
        """One step of length ``eps``; see :meth:`Attack.run`."""
        assert norm is not None
        return BALLS[norm].ascend(model, x, y, task=task, start=x, eps=eps, step_size=eps, steps=1)
