"""Random masking of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._noise import Noise

__all__ = ["PixelMasking"]


@dataclass(frozen=True, kw_only=True)
class PixelMasking(Noise):
    """Pixels are covered, in all channels; the strength is the percentage of them.

    TDSNN (arXiv:2508.04270) masks anew at every time step, ``draw=per-step``; it does not say how many.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {None: (5.0, 10.0, 20.0, 40.0)}
    units: ClassVar[float] = 100.0
    strength_word: ClassVar[str] = "percent"

    fill: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Value of a covered pixel."""

    def disturb(self, x: Tensor, strength: float, draws: SampleDraws) -> Tensor:
        """See :meth:`Noise.disturb`."""
        covered = draws.uniform(x[:, :1]) < 2 * strength - 1
        return torch.where(covered, torch.full_like(x, self.fill), x)
