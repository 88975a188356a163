"""Fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import ascend_linf

__all__ = ["FGSM"]


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One signed gradient step of length eps from the image (Goodfellow et al., 2015, arXiv:1412.6572).

    That is PGD with one step and no random start.
    """

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str | None, generator: SampleDraws
    ) -> Tensor:
        """One step of length ``eps``; see :meth:`Attack.run`."""
        return ascend_linf(model, x, y, start=x, eps=eps, step_size=eps, steps=1)
