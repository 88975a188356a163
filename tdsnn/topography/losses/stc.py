"""The spatio-temporal constraint (STC) loss of TDSNN (arXiv 2508.04270, eqs. 3-7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.registry import suggest
from tdsnn.schema import Table, Topography
from tdsnn.topography.clusters import gather
from tdsnn.topography.correlation import FLAT, pair_correlation
from tdsnn.topography.losses._base import (
    Sheeted,
    SpatialLoss,
    SpatialTerms,
    read_options,
    weigh,
)
from tdsnn.topography.losses._draws import ClusterDraws

__all__ = ["STC"]


class STCOptions(Table, frozen=True, kw_only=True):
    """What ``[topography]`` holds for this loss."""

    window_shape: Literal["flat", "triangular"] = "flat"
    """How the lags count: ``flat`` (the paper) or ``triangular``, which keeps |r_CCG| <= 1."""


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


class STC(SpatialLoss):
    """STC loss over the sheets of a network.

    L = sum over layers of the mean over M clusters of alpha L_L + beta L_S, with L = (1 - P) / 2.

    Args:
        model: has the sheets.
        topography: weights, window and its shape, number and size of the clusters.

    Raises:
        UsageError: no sheet, or another option.
    """

    Options = STCOptions
    timing = True

    def __init__(self, model: Sheeted, topography: Topography) -> None:
        self.check_network(model, topography)
        self.sheets = model.sheets
        self.layers = tuple(model.sheets)
        self.topography = topography
        self.draws: ClusterDraws = ClusterDraws(self.sheets, topography)
        self.window_shape = read_options(topography, STCOptions).window_shape

    def __call__(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> SpatialTerms:
        """Loss of one batch: L_L and L_S, and the fraction of silent pairs.

        Args:
            outputs: layer name to spikes in {0, 1}, in its sheet's layout.
            generator: CPU generator that draws the clusters.
        """
        terms = self.measure(outputs, generator=generator)
        layers = list(terms.values())
        rate = torch.stack([_mean_loss(t.rate, t.rate_valid) for t in layers]).sum()
        timing = torch.stack([_mean_loss(t.timing, t.timing_valid) for t in layers]).sum()
        masked = torch.cat([t.masked for t in layers]).mean()
        weighted = {"L_L": (self.topography.alpha, rate), "L_S": (self.topography.beta, timing)}
        return weigh(weighted, also_logged={"masked": masked})

    def measure(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, STCTerms]:
        """P(r, d) and P(r_CCG, d) of freshly drawn clusters, per layer."""
        spikes, proximity, sizes = [], [], []
        device = outputs[self.layers[0]].device
        for layer, clusters in self.draws.draw(generator, device=device).items():
            spikes.append(gather(outputs[layer], clusters, compiled=self.compiled))
            proximity.append(clusters.proximity)
            sizes.append(clusters.units.shape[1])
        terms: dict[int, STCTerms] = {}
        # Layers whose clusters have the same size share one batched product.
        for size in set(sizes):
            same = [i for i, s in enumerate(sizes) if s == size]
            stacked = stc_terms(
                self.team.gathered(torch.cat([spikes[i] for i in same]), dim=2),
                torch.cat([proximity[i] for i in same]),
                window=self.topography.window,
                shape=self.window_shape,
            )
            for place, index in enumerate(same):
                terms[index] = _part(stacked, place, self.topography.clusters)
        return {layer: terms[i] for i, layer in enumerate(self.sheets)}


def stc_terms(spikes_GTBN: Tensor, proximity_GNN: Tensor, *, window: int, shape: str = "flat") -> STCTerms:
    """Both spatial correlations of G clusters at once.

    Args:
        spikes_GTBN: G clusters, T steps, B trials, N units, float32 in {0, 1}.
        proximity_GNN: 1 / (1 + distance) of the pairs.
        window: largest lag W, 0 <= W < T.
        shape: see :func:`lag_kernel`.
    """
    steps, units = spikes_GTBN.shape[1], spikes_GTBN.shape[3]
    kernel = _kernel_on(spikes_GTBN.device, spikes_GTBN.dtype, steps, window, shape)
    rate, timing, rate_valid, timing_valid, varying = _Correlations.apply(spikes_GTBN, proximity_GNN, kernel)
    kept = varying * (varying - 1) / (units * (units - 1))
    return STCTerms(rate, timing, rate_valid, timing_valid, 1.0 - kept)


def lag_kernel(steps: int, *, window: int, shape: str) -> Tensor:
    """How much a pair of spikes at steps t and s counts, K (T, T), symmetric, 0 for lags above W.

    ``flat`` is the paper's 1 / (T - lag). That matrix is not positive definite, so r_CCG may exceed 1.
    ``triangular`` is (1 - lag / (W + 1)) / T, whose Fourier transform, Fejer's kernel, is never negative: no
    eigenvalue of K is either, so |r_CCG| <= 1. It has T where the paper has T - lag, because with the latter
    a triangle does not keep the bound either.

    Raises:
        UsageError: W outside 0 to T - 1, or another shape.
    """
    if not 0 <= window < steps:
        raise UsageError(f"The window must lie in 0 to {steps - 1} for {steps} time steps, not {window}.")
    lag = (torch.arange(steps)[:, None] - torch.arange(steps)[None]).abs()
    if shape == "flat":
        return torch.where(lag <= window, 1.0 / (steps - lag), torch.zeros(()))
    if shape == "triangular":
        return (1.0 - lag / (window + 1)).clamp_min(0.0) / steps
    raise suggest(shape, ("flat", "triangular"), kind="window shape")


@cache
def _kernel_on(device: torch.device, dtype: torch.dtype, steps: int, window: int, shape: str) -> Tensor:
    """:func:`lag_kernel`, made once."""
    return lag_kernel(steps, window=window, shape=shape).to(device, dtype)


class _Correlations(torch.autograd.Function):
    """P(r, d) and P(r_CCG, d), with a backward of two products: both Gram matrices are symmetric.

    The cross-correlograms, summed over lags -W..W, are one Gram product, (1/B) X^T (K * X): the kernel K of
    :func:`lag_kernel` applies the window along time first.
    """

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, proximity: Tensor, kernel: Tensor) -> tuple[Tensor, ...]:
        trials = spikes.shape[2]
        rates = spikes.mean(1)
        centred = rates - rates.mean(1, keepdim=True)
        smoothed = (kernel @ spikes.flatten(2)).view_as(spikes)
        by_rate = centred.transpose(1, 2) @ centred / trials
        by_timing = spikes.flatten(1, 2).transpose(1, 2) @ smoothed.flatten(1, 2) / trials
        wanted = ctx.needs_input_grad[0]
        rate = pair_correlation(by_rate, proximity, floor=FLAT, with_gradient=wanted)
        timing = pair_correlation(by_timing, proximity, floor=0.0, with_gradient=wanted)
        ctx.save_for_backward(centred, smoothed, rate.gradient, timing.gradient)
        ctx.mark_non_differentiable(rate.defined, timing.defined, rate.kept)
        return rate.correlation, timing.correlation, rate.defined, timing.defined, rate.kept

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_rate: Tensor, to_timing: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        centred, smoothed, rate_gradient, timing_gradient = ctx.saved_tensors
        steps, trials = smoothed.shape[1:3]
        by_timing = timing_gradient * (2 / trials * to_timing)[:, None, None]
        by_rate = rate_gradient * (2 / (trials * steps) * to_rate)[:, None, None]
        to_spikes = (smoothed.flatten(1, 2) @ by_timing).view_as(smoothed)
        return to_spikes.add_((centred @ by_rate).unsqueeze(1)), None, None


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
