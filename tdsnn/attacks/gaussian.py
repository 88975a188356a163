"""Gaussian pixel noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.tasks._base import Task

__all__ = ["Gaussian"]


@dataclass(frozen=True, kw_only=True)
class Gaussian(Attack):
    """Independent normal noise on every pixel, one draw for each image, clipped to [0, 1].

    eps is the standard deviation; there is no ball. The draw is the same for every strength and model, and
    static: all time steps see the same noisy image. As for every attack, an image counts as robust if it
    is classified correctly both without and with the noise, so the figure can be below the plain accuracy
    on noisy images (which also counts images that the noise happens to correct).
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {None: (8.0, 16.0, 32.0, 64.0)}

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
        """Add the noise; see :meth:`Attack.run`."""
        return torch.clamp(x + eps * generator.normal(x), 0, 1)
