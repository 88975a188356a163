"""How well neighbours on the sheets of a trained network respond alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.schema import Topography
from tdsnn.topography.clusters import Clusters, gather, sample_clusters
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses.stc import stc_terms
from tdsnn.topography.outputs import capture_outputs, evaluating
from tdsnn.topography.sheets import CorticalSheet

NEIGHBOURHOODS = 50
"""Drawn on each sheet by :func:`measure_alignment`."""
LARGEST_SHARE = 0.5
"""Of a sheet's units in a neighbourhood: larger ones are nearly the same each time and scatter too little."""


@dataclass(frozen=True)
class LayerAlignment:
    """Mean over neighbourhoods, and how sure it is."""

    mean: float
    """NaN if fewer than two neighbourhoods had a defined correlation."""
    interval: tuple[float, float] | None
    """95 % t-interval over the neighbourhoods; None where ``reason`` says why there is none."""
    clusters: int
    """Neighbourhoods that had a defined correlation."""
    reason: str = ""


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
        """Add one batch: layer name to spikes, in its sheet's layout."""
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
            found["rate"][layer] = _summary(terms.rate[terms.rate_valid], clusters)
            found["timing"][layer] = _summary(terms.timing[terms.timing_valid], clusters)
        return found


def measure_alignment(
    model: nn.Module,
    sheets: Mapping[str, CorticalSheet],
    batches: Iterable[Tensor],
    *,
    topography: Topography,
    timesteps: int,
) -> dict[str, dict[str, LayerAlignment]]:
    """P(r, d) as ``rate`` and P(r_CCG, d) as ``timing`` of each sheet, as of :class:`Alignment`.

    Args:
        batches: images (N, C, H, W) in [0, 1].
        topography: size and seed of the neighbourhoods, and the largest lag.
        timesteps: T of the model; with one step there are no spike times, and so no ``timing``.

    Raises:
        UsageError: no images, or a layer whose output does not fit its sheet.
    """
    measured = Alignment(
        sheets,
        clusters=NEIGHBOURHOODS,
        units=topography.cluster_units,
        window=min(topography.window, timesteps - 1),
        seed=topography.sheet_seed,
    )
    with evaluating(model) as device, capture_outputs(model, _specs(sheets)) as outputs:
        for images in batches:
            model(images.to(device))
            measured.update(outputs)
    found = measured.compute()
    return found if timesteps > 1 else {"rate": found["rate"]}


def firing_rates(
    model: nn.Module, layers: Iterable[str | SheetSpec], batches: Iterable[Tensor]
) -> dict[str, float]:
    """Mean output of each layer over images (N, C, H, W); of spikes, how many per unit and time step."""
    sums: dict[str, float] = {}
    shown, wanted = 0, tuple(layers)
    with evaluating(model) as device, capture_outputs(model, wanted) as outputs:
        for images in batches:
            model(images.to(device))
            shown += len(images)
            for layer, output in outputs.items():
                total = len(images) * float(output.mean(dtype=torch.float32))
                sums[layer] = sums.get(layer, 0.0) + total
    return {layer: total / shown for layer, total in sums.items()}


def _specs(sheets: Mapping[str, CorticalSheet]) -> list[SheetSpec]:
    return [sheet.spec for sheet in sheets.values()]


def _summary(values: Tensor, clusters: Clusters) -> LayerAlignment:
    count = values.numel()
    if count < 2:
        return LayerAlignment(math.nan, None, count, "too few units fire")
    mean = float(values.mean())
    units, total = clusters.units.shape[1], len(clusters.sheet.positions)
    if units > LARGEST_SHARE * total:
        return LayerAlignment(
            mean, None, count, f"all neighbourhoods are alike, with {units} of the sheet's {total} units"
        )
    half = float(stdtrit(count - 1, 0.975)) * float(values.std()) / math.sqrt(count)
    return LayerAlignment(mean, (mean - half, mean + half), count)
