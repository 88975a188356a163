"""How well neighbours on the sheets of a trained network respond alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.topography.clusters import gather, sample_clusters
from tdsnn.topography.losses.stc import stc_terms
from tdsnn.topography.sheets import CorticalSheet


@dataclass(frozen=True)
class LayerAlignment:
    """Mean over clusters with a 95 % t-interval, and how many clusters had a defined correlation."""

    mean: float
    low: float
    high: float
    clusters: int


class Alignment:
    """P(r, d) and P(r_CCG, d) of each layer over many images, on neighbourhoods drawn once.

    P is the Pearson correlation, over the pairs of a neighbourhood, between response similarity (of rates,
    or of spike times) and proximity 1 / (1 + mm); 0 means no topography (arXiv 2508.04270, eqs. 3-7).

    Args:
        sheets: layer name to sheet.
        clusters: neighbourhoods per layer.
        units: units in each.
        window: largest lag of the cross-correlogram, in time steps.
        seed: seed of the neighbourhoods; the same for a model and its twin.
    """

    def __init__(
        self, sheets: Mapping[str, CorticalSheet], *, clusters: int, units: int, window: int, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.window = window
        self.clusters = {
            layer: sample_clusters(sheet, count=clusters, units=units, generator=generator)
            for layer, sheet in sheets.items()
        }
        self._spikes: dict[str, list[Tensor]] = {layer: [] for layer in sheets}

    def update(self, outputs: Mapping[str, Tensor]) -> None:
        """Add one batch: layer name to spikes (T, B, C, H, W)."""
        for layer, clusters in self.clusters.items():
            self._spikes[layer].append(gather(outputs[layer].detach(), clusters).cpu())

    def compute(self) -> dict[str, dict[str, LayerAlignment]]:
        """``{"rate": {layer: ...}, "timing": {layer: ...}}`` over all images seen.

        Raises:
            UsageError: no batch was added.
        """
        if not all(self._spikes.values()):
            raise UsageError("The alignment of a network needs at least one batch of images.")
        found: dict[str, dict[str, LayerAlignment]] = {"rate": {}, "timing": {}}
        for layer, clusters in self.clusters.items():
            terms = stc_terms(torch.cat(self._spikes[layer], dim=2), clusters.proximity, window=self.window)
            found["rate"][layer] = _summary(terms.rate[terms.rate_valid])
            found["timing"][layer] = _summary(terms.timing[terms.timing_valid])
        return found


def _summary(values: Tensor) -> LayerAlignment:
    count = values.numel()
    if count < 2:
        return LayerAlignment(math.nan, math.nan, math.nan, count)
    mean = float(values.mean())
    half = float(stdtrit(count - 1, 0.975)) * float(values.std()) / math.sqrt(count)
    return LayerAlignment(mean, mean - half, mean + half, count)
