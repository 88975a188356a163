"""Random neighbourhoods on a cortical sheet and the activity of their units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.kernels.columns import gather_columns
from tdsnn.topography.sheets import CorticalSheet

MIN_UNITS = 5
"""Fewest units a neighbourhood may hold for a correlation over its pairs to mean anything (TDANN)."""


@dataclass(frozen=True)
class Clusters:
    """M neighbourhoods of N units on one sheet.

    Args:
        sheet: where they lie.
        units: (M, N) int64, in the order of :mod:`tdsnn.topography.layouts`.
        proximity: (M, N, N) float32, as :meth:`CorticalSheet.proximity`, of each pair.
    """

    sheet: CorticalSheet
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
    units_MN = sample_units(sheet, count=count, units=units, generator=generator)
    return Clusters(sheet=sheet, units=units_MN, proximity=sheet.proximity(sheet.positions[units_MN]))


def sample_units(sheet: CorticalSheet, *, count: int, units: int, generator: torch.Generator) -> Tensor:
    """The units (M, N) of :func:`sample_clusters` alone; arguments and errors are its own."""
    positions = sheet.positions
    size = min(units, positions.shape[0])
    if count < 1 or size < MIN_UNITS:
        raise UsageError(
            f"A cluster needs at least {MIN_UNITS} units and a count of at least 1; "
            f"{sheet.layer} got {size} and {count}."
        )
    low, high = sheet.extent
    margin = torch.minimum((high - low) / 2, torch.full((2,), sheet.neighbourhood_mm / 2))
    centres = low + margin + torch.rand(count, 2, generator=generator) * (high - low - 2 * margin)
    chosen = []
    for centre in centres:
        inside = sheet.units_within(centre, sheet.neighbourhood_mm / 2)
        if len(inside) >= size:
            chosen.append(inside[torch.randperm(len(inside), generator=generator)[:size]])
        else:
            distance = (positions - centre).abs().amax(1)
            chosen.append(distance.topk(size, largest=False, sorted=False).indices)
    return torch.stack(chosen)


def gather(output: Tensor, clusters: Clusters, *, compiled: bool = False) -> Tensor:
    """Activity (M, T, B, N) of the clusters' units in an output of the sheet's layer, as float32.

    Raises:
        UsageError: an output of another layout or shape than the sheet's.
    """
    maps_TNCHW = clusters.sheet.as_maps(output)
    steps, trials, channels, height, width = maps_TNCHW.shape
    units = clusters.units.to(output.device)
    # In (H, W, C) order tokens and the units of channels-last maps are a view; in (C, H, W) they are a copy.
    channel, pixel = units // (height * width), units % (height * width)
    rows = maps_TNCHW.permute(0, 1, 3, 4, 2).reshape(steps * trials, -1)
    chosen = gather_columns(rows, pixel * channels + channel, compiled=compiled)
    return chosen.view(-1, steps, trials, units.shape[1])
