"""Gaussian pixel noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._noise import Noise

__all__ = ["Gaussian"]


@dataclass(frozen=True, kw_only=True)
class Gaussian(Noise):
    """Independent normal noise on every value, clipped to [0, 1]; the strength is its standard deviation."""

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {None: (8.0, 16.0, 32.0, 64.0)}

    strength_word: ClassVar[str] = "sigma"

    def disturb(self, x: Tensor, strength: float, draws: SampleDraws) -> Tensor:
        """See :meth:`Noise.disturb`."""
        return (x + strength * draws.normal(x)).clamp(0, 1)
