"""Corruptions of CIFAR-10-C."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from tdsnn.attacks._corruptions import corrupted
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._noise import Noise

__all__ = ["Corruption"]

Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
]


@dataclass(frozen=True, kw_only=True)
class Corruption(Noise):
    """One corruption with the constants of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).

    The strength is the severity, 1 to 5. The eight kinds are those that can be computed exactly; the draws
    are this project's, so noise is equal to that of the released arrays in distribution only. Those arrays
    themselves are a dataset of one's own: ``--data IMAGES.npy,LABELS.npy``.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {None: (1.0, 3.0, 5.0)}
    units: ClassVar[float] = 5.0
    strength_word: ClassVar[str] = "severity"
    leading: ClassVar[str | None] = "kind"

    kind: Kind = "gaussian_noise"

    def disturb(self, x: Tensor, strength: float, draws: SampleDraws) -> Tensor:
        """See :meth:`Noise.disturb`; between two severities it is the higher one, at 0 nothing changes."""
        return corrupted(x, self.kind, math.ceil(5 * strength - 1e-6), draws) if strength else x
