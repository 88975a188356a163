"""Surrogates that are one function of the potential at one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.kernels.lif import atan_slope
from tdsnn.kernels.surrogates._base import Surrogate


def _sigmoid(above: Tensor, alpha: float) -> Tensor:
    rising = torch.sigmoid(alpha * above)
    return alpha * rising * (1 - rising)


def _triangle(above: Tensor, alpha: float) -> Tensor:
    return (alpha - alpha**2 * above.abs()).clamp(min=0)


def _rectangle(above: Tensor, alpha: float) -> Tensor:
    return alpha * (above.abs() <= 0.5 / alpha).to(above.dtype)


def _gaussian(above: Tensor, alpha: float) -> Tensor:
    return alpha / math.sqrt(math.pi) * torch.exp(-((alpha * above) ** 2))


def _straight_through(above: Tensor, _alpha: float) -> Tensor:
    return torch.ones_like(above)


SHAPES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "atan": atan_slope,
    "sigmoid": _sigmoid,
    "triangle": _triangle,
    "rectangle": _rectangle,
    "gaussian": _gaussian,
    "straight-through": _straight_through,
}
"""Derivatives at a distance from the threshold for a sharpness: the greater, the narrower and higher. It is
``alpha`` of SpikingJelly's ``ATan``, ``Sigmoid``, ``PiecewiseQuadratic``, ``Rect`` and ``Erf``;
their integral is 1. Straight-through (Bengio et al., 2013, arXiv:1308.3432) is 1 everywhere."""


@dataclass(frozen=True)
class Shape(Surrogate):
    """One of :data:`SHAPES` with a sharpness."""

    @property
    def derivative(self) -> Callable[[Tensor], Tensor]:
        shape = SHAPES[self.name]
        sharpness = 1.0 if self.constant is None else self.constant
        return lambda above: shape(above, sharpness)
