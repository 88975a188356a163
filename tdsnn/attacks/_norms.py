"""Distances in which a budget is a radius: one table, by which every attack is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

ROUNDING = 2**-23
"""How far a float32 pixel in [0, 1] may lie from the one meant: rounded once by the attack when it adds the
perturbation and once when it clips, each by at most half a unit in the last place, 2**-25 to 2**-24."""
RELATIVE = 1e-6
"""Relative error of a radius that was itself computed in float32, such as eps divided by a sum of squares."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """One distance between an image and what became of it."""

    length: Callable[[Tensor], Tensor]
    """Lengths (N,) of differences (N, D)."""
    of_ones: Callable[[int], float]
    """Length of D ones: the distance between an all-black and an all-white image of D values."""
    continuous: bool = True
    """Whether rounding changes it; a count of changed values is exact."""
    units: float = 255.0
    """Into how many parts eps 1 is divided where people state it: 255 grey levels, or single values."""

    def distance(self, one: Tensor, other: Tensor) -> float:
        """The largest distance between two images of the same place in two batches (N, C, H, W)."""
        # float64, so that the sum over many pixels adds no rounding of its own.
        return float(self.length((one.double() - other.double()).flatten(1)).max())

    def tolerance(self, eps: float, values: int) -> float:
        """By how much float32 may exceed the radius ``eps`` on images of that many values."""
        return ROUNDING * self.of_ones(values) + RELATIVE * eps if self.continuous else 0.0


NORMS = {
    "linf": Norm(length=lambda d: d.abs().amax(1), of_ones=lambda values: 1.0),
    "l2": Norm(length=lambda d: d.square().sum(1).sqrt(), of_ones=lambda values: values**0.5),
    "l1": Norm(length=lambda d: d.abs().sum(1), of_ones=float),
    "l0": Norm(length=lambda d: (d != 0).sum(1), of_ones=float, continuous=False, units=1.0),
}
