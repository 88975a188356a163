"""What attacks without a gradient share: changes that are drawn once, or anew at every time step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.tasks._base import Task


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Base of noise: there is no ball, and the draws are the same for every strength and model.

    As for every attack, an image counts as robust if it is answered right both without and with the noise,
    so the figure can be below the plain accuracy on noisy images (which also counts images that the noise
    happens to correct).
    """

    draw: Literal["static", "per-step"] = "static"
    """``static``: all time steps see the same image. ``per-step``: each sees noise of its own, which a
    network that is shown images directly can average; one with a single time step sees one draw."""

    @abstractmethod
    def disturb(self, x: Tensor, strength: float, draws: SampleDraws) -> Tensor:
        """One draw: images (N, C, H, W) in [0, 1]; ``strength`` is a fraction of what is possible."""

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
        """Add the noise; see :meth:`Attack.run`. (T, N, C, H, W) if it is drawn at every step."""
        if self.draw == "static":
            return self.disturb(x, eps, generator)
        steps = int(getattr(model, "timesteps", 1))
        return torch.stack([self.disturb(x, eps, generator) for _ in range(steps)])
