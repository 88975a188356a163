"""Fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tdsnn.attacks._ascent import GradientAttack
from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._objective import Objective

__all__ = ["FGSM"]


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One gradient step of length eps from the image (Goodfellow et al., 2015, arXiv:1412.6572).

    In L2 the step follows the gradient, not its sign.
    """

    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """The image itself."""
        return x

    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """One step; see :meth:`GradientAttack.search`."""
        _, gradient = objective.gradient(start)
        return BALLS[norm].project(start + eps * BALLS[norm].steepest(gradient), objective.x, eps)
