"""The spatio-temporal constraint (STC) loss of TDSNN (arXiv 2508.04270, eqs. 3-7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.topography.clusters import gather, sample_clusters
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.types import Topography

__all__ = ["STC"]

_FLAT = 1e-6
"""Smallest variance over pairs (or over trials) that counts as varying; below it a correlation is 0/0."""


@dataclass(frozen=True)
class STCTerms:
    """Spatial correlations of G clusters, before weighting.

    Args:
        rate: (G,) P(r, d), Pearson between rate correlation and proximity over the pairs of a cluster.
        timing: (G,) P(r_CCG, d), the same for the normalised cross-correlogram.
        rate_valid, timing_valid: (G,) whether the cluster had enough varying pairs; P is 0 where it had not.
        masked: (G,) fraction of pairs left out of the rate term because a unit's rate never varied.
    """

    rate: Tensor
    timing: Tensor
    rate_valid: Tensor
    timing_valid: Tensor
    masked: Tensor


class STC:
    """STC loss over the sheets of a network.

    L = sum over layers of the mean over M clusters of alpha L_L + beta L_S, with L = (1 - P) / 2.

    Args:
        sheets: layer name to sheet.
        topography: weights, window, number and size of the clusters.
    """

    def __init__(self, sheets: Mapping[str, CorticalSheet], topography: Topography) -> None:
        if not sheets:
            raise UsageError("The STC loss needs at least one cortical sheet.")
        self.sheets = sheets
        self.topography = topography
        self.compiled = False

    def __call__(
        self, outputs: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch and its parts for the log.

        Args:
            outputs: layer name to spikes (T, B, C, H, W) in {0, 1}.
            generator: CPU generator that draws the clusters.
        """
        terms = self.measure(outputs, generator=generator)
        layers = list(terms.values())
        rate = torch.stack([_mean_loss(t.rate, t.rate_valid) for t in layers]).sum()
        timing = torch.stack([_mean_loss(t.timing, t.timing_valid) for t in layers]).sum()
        loss = self.topography.alpha * rate + self.topography.beta * timing
        masked = torch.cat([t.masked for t in layers]).mean()
        return loss, {"L_L": rate.detach(), "L_S": timing.detach(), "masked": masked.detach()}

    def measure(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, STCTerms]:
        """P(r, d) and P(r_CCG, d) of freshly drawn clusters, per layer."""
        spikes, proximity, sizes = [], [], []
        for layer, sheet in self.sheets.items():
            clusters = sample_clusters(
                sheet,
                count=self.topography.clusters,
                units=self.topography.cluster_units,
                generator=generator,
            )
            spikes.append(gather(outputs[layer], clusters, compiled=self.compiled))
            proximity.append(clusters.proximity.to(spikes[-1].device))
            sizes.append(clusters.units.shape[1])
        terms: dict[int, STCTerms] = {}
        # Layers whose clusters have the same size share one batched product.
        for size in set(sizes):
            same = [i for i, s in enumerate(sizes) if s == size]
            stacked = stc_terms(
                torch.cat([spikes[i] for i in same]),
                torch.cat([proximity[i] for i in same]),
                window=self.topography.window,
            )
            for place, index in enumerate(same):
                terms[index] = _part(stacked, place, self.topography.clusters)
        return {layer: terms[i] for i, layer in enumerate(self.sheets)}


def stc_terms(spikes_GTBN: Tensor, proximity_GNN: Tensor, *, window: int) -> STCTerms:
    """Both spatial correlations of G clusters at once.

    Args:
        spikes_GTBN: G clusters, T steps, B trials, N units, float32 in {0, 1}.
        proximity_GNN: 1 / (1 + distance) of the pairs.
        window: largest lag W, 0 <= W < T.
    """
    steps, trials, units = spikes_GTBN.shape[1:]
    if not 0 <= window < steps:
        raise UsageError(f"The window must lie in 0 to {steps - 1} for {steps} time steps, not {window}.")
    proximity = proximity_GNN - torch.diag_embed(proximity_GNN.diagonal(dim1=1, dim2=2))
    rates_GBN = spikes_GTBN.mean(1)
    centred = rates_GBN - rates_GBN.mean(1, keepdim=True)
    covariance = centred.transpose(1, 2) @ centred / trials
    rate, rate_valid, varying = _alignment(covariance, proximity, floor=_FLAT)
    timing, timing_valid, _ = _alignment(_ccg(spikes_GTBN, window), proximity, floor=0.0)
    kept = varying * (varying - 1) / (units * (units - 1))
    return STCTerms(rate, timing, rate_valid, timing_valid, 1.0 - kept)


def _ccg(spikes_GTBN: Tensor, window: int) -> Tensor:
    """Cross-correlograms (G, N, N) summed over lags -W..W: one Gram product, (1/B) X^T (K * X).

    K_ts = 1 / (T - |t - s|) for |t - s| <= W applies the window along time first.
    """
    steps, trials = spikes_GTBN.shape[1:3]
    lag = (torch.arange(steps)[:, None] - torch.arange(steps)[None]).abs()
    kernel = torch.where(lag <= window, 1.0 / (steps - lag), torch.zeros(())).to(spikes_GTBN)
    smoothed = (kernel @ spikes_GTBN.flatten(2)).view_as(spikes_GTBN)
    return spikes_GTBN.flatten(1, 2).transpose(1, 2) @ smoothed.flatten(1, 2) / trials


def _alignment(gram_GNN: Tensor, proximity_GNN: Tensor, *, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pearson over pairs between c_ij = g_ij / sqrt(g_ii g_jj) and proximity, without silent units.

    A unit whose g_ii is not above ``floor`` gets the scale 0, which removes its pairs from every sum and
    its gradient with them: a surrogate gradient, unlike ReLU's, would let the NaN of 0/0 through.
    Both matrices are symmetric, so sums over i != j stand for sums over the pairs.

    Args:
        proximity_GNN: with a zero diagonal.

    Returns:
        (G,) correlation (0 where undefined), (G,) whether it is defined, (G,) units kept.
    """
    diagonal = gram_GNN.diagonal(dim1=1, dim2=2)
    present = diagonal > floor
    keep = present.to(gram_GNN.dtype)
    scale = torch.where(present, diagonal, torch.ones_like(diagonal)).rsqrt() * keep
    values = gram_GNN * scale.unsqueeze(1) * scale.unsqueeze(2)
    kept = keep.sum(1)
    pairs = (kept * (kept - 1)).clamp_min(1.0)
    # The diagonal of ``values`` is 1 for every unit kept; the sums leave it out.
    mean = (values.sum((1, 2)) - kept) / pairs
    variance = (values.square().sum((1, 2)) - kept) / pairs - mean.square()
    weights = keep.unsqueeze(1) * keep.unsqueeze(2)
    near_mean = (proximity_GNN * weights).sum((1, 2)) / pairs
    near = (proximity_GNN - near_mean[:, None, None]) * weights
    near = near - torch.diag_embed(near.diagonal(dim1=1, dim2=2))
    near_variance = near.square().sum((1, 2)) / pairs
    covariance = (values * near).sum((1, 2)) / pairs
    defined = (kept >= 3) & (variance > _FLAT) & (near_variance > 0)
    product = torch.where(defined, variance * near_variance, torch.ones_like(variance))
    return torch.where(defined, covariance * product.rsqrt(), 0.0), defined, kept


def _mean_loss(correlation: Tensor, valid: Tensor) -> Tensor:
    """Mean over clusters of (1 - P) / 2; a cluster without a defined P adds nothing."""
    return ((1.0 - correlation) / 2 * valid).mean()


def _part(terms: STCTerms, place: int, count: int) -> STCTerms:
    own = slice(place * count, (place + 1) * count)
    return STCTerms(
        terms.rate[own],
        terms.timing[own],
        terms.rate_valid[own],
        terms.timing_valid[own],
        terms.masked[own],
    )
