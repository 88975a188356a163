"""Random neighbourhoods on a cortical sheet and the activity of their units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tdsnn.errors import UsageError
from tdsnn.topography.sheets import CorticalSheet

MIN_UNITS = 5
"""Fewest units a neighbourhood may hold for a correlation over its pairs to mean anything (TDANN)."""


@dataclass(frozen=True)
class Clusters:
    """M neighbourhoods of N units on one sheet.

    Args:
        units: (M, N) int64, indices into the layer's output flattened in (C, H, W) order.
        proximity: (M, N, N) float32, 1 / (1 + distance in mm) of each pair.
    """

    units: Tensor
    proximity: Tensor


def sample_clusters(sheet: CorticalSheet, *, count: int, units: int, generator: torch.Generator) -> Clusters:
    """Draw neighbourhood squares at random places of the sheet.

    Each holds the same number of units so that all of them go through one batched product: if the square of
    side ``neighbourhood_mm`` holds more than ``units``, a random choice of them; if fewer, the nearest units
    around it join. A sheet with fewer units than asked gives all of them.

    Raises:
        UsageError: a count below 1 or fewer than 5 units.
    """
    positions = sheet.positions
    size = min(units, positions.shape[0])
    if count < 1 or size < MIN_UNITS:
        raise UsageError(
            f"A cluster needs at least {MIN_UNITS} units and a count of at least 1; "
            f"{sheet.layer} got {size} and {count}."
        )
    low, high = positions.amin(0), positions.amax(0)
    margin = torch.minimum((high - low) / 2, torch.full((2,), sheet.neighbourhood_mm / 2))
    centres = low + margin + torch.rand(count, 2, generator=generator) * (high - low - 2 * margin)
    x, y = positions.T.contiguous()
    distance = torch.maximum((x - centres[:, :1]).abs(), (y - centres[:, 1:]).abs())
    order = torch.rand(distance.shape, generator=generator)
    rank = torch.where(distance <= sheet.neighbourhood_mm / 2, order, 1.0 + distance)
    chosen = rank.topk(size, largest=False, sorted=False).indices
    placed = positions[chosen]
    # The default mode goes through a matrix product, which is off by 0.02 mm on a sheet of 70 mm.
    distances = torch.cdist(placed, placed, compute_mode="donot_use_mm_for_euclid_dist")
    return Clusters(units=chosen, proximity=1.0 / (1.0 + distances))


def gather(output_TNCHW: Tensor, clusters: Clusters) -> Tensor:
    """Activity (M, T, B, N) of the clusters' units in a layer output (T, B, C, H, W), as float32."""
    steps, trials, channels, height, width = output_TNCHW.shape
    count, size = clusters.units.shape
    units = clusters.units.flatten().to(output_TNCHW.device)
    # In (H, W, C) order the units of a channels-last output are a view; in (C, H, W) they would be a copy.
    channel, pixel = units // (height * width), units % (height * width)
    rows = output_TNCHW.permute(0, 1, 3, 4, 2).reshape(steps * trials, -1)
    chosen: Tensor = _Columns.apply(rows, pixel * channels + channel)
    return chosen.view(steps, trials, count, size).permute(2, 0, 1, 3)


class _Columns(torch.autograd.Function):
    """Columns of a matrix (R, U), as float32; a column may be asked for more than once."""

    @staticmethod
    def forward(ctx: Any, rows_RU: Tensor, columns: Tensor) -> Tensor:
        ctx.columns, ctx.shape, ctx.dtype = columns, rows_RU.shape, rows_RU.dtype
        return rows_RU.index_select(1, columns).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        different, place = ctx.columns.unique(return_inverse=True)
        # A small matrix product adds what goes to the same column; scatter_add takes several times as long.
        added = grad @ F.one_hot(place, len(different)).to(grad.dtype)
        to_rows = grad.new_zeros(ctx.shape, dtype=ctx.dtype)
        to_rows[:, different] = added.to(ctx.dtype)
        return to_rows, None
