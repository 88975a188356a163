"""TopoLoss (Deb, Deb and Murty 2025, arXiv 2501.16396): neighbouring units have similar incoming weights.

Needs neither positions nor data. Equal to the value of the authors' package ``topoloss`` 0.0.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn.errors import UsageError
from tdsnn.schema import Table, Topography
from tdsnn.topography.losses._base import (
    Sheeted,
    SpatialLoss,
    SpatialTerms,
    alpha_alone,
    read_options,
    weigh,
)

__all__ = ["TopoLoss"]


Factor = Annotated[float, Meta(ge=1, le=1_000)]


class TopoLossOptions(Table, frozen=True, kw_only=True):
    """What ``[topography]`` holds for this loss.

    By how much the grid of a layer's units is reduced before it is enlarged again; 3 and 8 are the values of
    its authors' examples (github.com/murtylab/topoloss).
    """

    factor_h: Factor = 3.0
    factor_w: Factor = 3.0


class TopoLoss(SpatialLoss):
    """L = alpha times the mean, over the convolutions inside the sheet layers, of :func:`roughness`.

    All convolutions of a residual block count, as in the paper. A 1x1 convolution in its shortcut is one of
    them: what it puts out is added to the units of the last convolution, so both share one grid.

    Args:
        model: its sheet layers say which convolutions.
        topography: ``alpha`` (the paper's tau), ``factor_h`` and ``factor_w``; nothing else is used.

    Raises:
        UsageError: no convolution, another option, a grid too small for the factors, or a ``beta``.
    """

    Options = TopoLossOptions

    def __init__(self, model: Sheeted, topography: Topography) -> None:
        self.check_network(model, topography)
        self.alpha = alpha_alone(topography)
        self.factors = _factors(topography)
        self.convolutions = _convolutions(model)

    @classmethod
    def check_network(cls, model: Sheeted, topography: Topography) -> None:
        """As of every loss; here the layers with sheets must also hold convolutions of enough channels."""
        found = _convolutions(model)
        if not found:
            raise UsageError("TopoLoss needs at least one convolution inside the layers with sheets.")
        for name, module in found.items():
            _check_grid(name, module.out_channels, _factors(topography))

    def __call__(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> SpatialTerms:
        """Loss of the present weights; no output is looked at and nothing is drawn."""
        rough = [roughness(module.weight, self.factors) for module in self.convolutions.values()]
        return weigh({"spatial": (self.alpha, torch.stack(rough).mean())})


def _factors(topography: Topography) -> tuple[float, float]:
    options = read_options(topography, TopoLossOptions)
    return options.factor_h, options.factor_w


def _convolutions(model: Sheeted) -> dict[str, nn.Conv2d]:
    """Name to convolution inside the layers with sheets."""
    return {
        f"{layer}.{name}".removesuffix("."): module
        for layer in model.sheets
        for name, module in model.get_submodule(layer).named_modules()
        if isinstance(module, nn.Conv2d)
    }


def roughness(weight: Tensor, factors: tuple[float, float]) -> Tensor:
    """1 - mean cosine between the incoming weights of each output unit and a blurred copy, (), in [0, 2].

    The N output units lie row by row on the grid of :func:`grid_shape`; the blur is a bilinear reduction by
    ``factors`` (height, width) and a bilinear enlargement to the old size, first along rows, then columns.

    Args:
        weight: (N, ...).
    """
    height, width = grid_shape(len(weight))
    rows = weight.flatten(1)
    along_width = _blur(width, factors[1], rows.device, rows.dtype) @ rows.view(height, width, -1)
    blurred = _blur(height, factors[0], rows.device, rows.dtype) @ along_width.flatten(1)
    return 1.0 - F.cosine_similarity(rows, blurred.view_as(rows), dim=1).mean()


def grid_shape(units: int) -> tuple[int, int]:
    """(height, width) of the grid of so many units; height is their largest divisor up to the square root."""
    height = next(h for h in range(math.isqrt(units), 0, -1) if units % h == 0)
    return height, units // height


@cache
def _blur(side: int, factor: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The reduction and enlargement of a line of so many units as a matrix (side, side), made once.

    Products with it take a third of the time that interpolating all weights of 512 units takes.
    """
    small = F.interpolate(torch.eye(side)[None], scale_factor=1 / factor, mode="linear")
    return F.interpolate(small, size=side, mode="linear")[0].T.to(device, dtype)


def _check_grid(name: str, units: int, factors: tuple[float, float]) -> None:
    height, width = grid_shape(units)
    if any(
        math.floor(side * (1 / factor)) < 1 for side, factor in zip((height, width), factors, strict=True)
    ):
        raise UsageError(
            f"The {units} output channels of {name} lie on a grid of {height} x {width}, which cannot be "
            f"reduced by {factors[0]:g} x {factors[1]:g}.",
            hint=f"Give at most --set topography.factor_h={height} --set topography.factor_w={width}",
        )
