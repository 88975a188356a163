"""Salt-and-pepper noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tdsnn.attacks._corruptions import salt_and_pepper
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._noise import Noise

__all__ = ["SaltAndPepper"]


@dataclass(frozen=True, kw_only=True)
class SaltAndPepper(Noise):
    """Values become 0 or 1, half of them each; the strength is the percentage of them."""

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {None: (1.0, 2.0, 5.0, 10.0)}
    units: ClassVar[float] = 100.0
    strength_word: ClassVar[str] = "percent"

    def disturb(self, x: Tensor, strength: float, draws: SampleDraws) -> Tensor:
        """See :meth:`Noise.disturb`."""
        return salt_and_pepper(x, strength, draws)
