"""TDANN's spatial loss (Margalit et al., Neuron 2024): neighbouring units respond alike.

For networks without spikes; of a network with several time steps it sees the mean over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from tdsnn.schema import Table, Topography
from tdsnn.topography.clusters import gather
from tdsnn.topography.correlation import FLAT, pair_correlation
from tdsnn.topography.losses._base import (
    Sheeted,
    SpatialLoss,
    SpatialTerms,
    alpha_alone,
    read_options,
    weigh,
)
from tdsnn.topography.losses._draws import ClusterDraws

__all__ = ["TDANN"]


class TDANNOptions(Table, frozen=True, kw_only=True):
    """What ``[topography]`` holds for this loss."""

    form: Literal["relative", "absolute"] = "relative"
    """What is asked of similarity: ``relative`` (to follow proximity) or ``absolute`` (to equal it)."""


class TDANN(SpatialLoss):
    """L = alpha times the sum over layers of the mean over M clusters of one of two forms.

    ``relative`` is (1 - P) / 2, where P is Pearson's correlation, over the pairs of a cluster, between
    response correlation and proximity; ``absolute`` is the mean distance between the two. TDANN itself has
    alpha = 0.25 and one cluster per step.

    Args:
        model: has the sheets.
        topography: alpha, number and size of the clusters, and the form.

    Raises:
        UsageError: no sheet, another option or form, or a ``beta``.
    """

    Options = TDANNOptions

    def __init__(self, model: Sheeted, topography: Topography) -> None:
        self.check_network(model, topography)
        self.form = _FORMS[read_options(topography, TDANNOptions).form]
        self.alpha = alpha_alone(topography)
        self.sheets = model.sheets
        self.layers = tuple(model.sheets)
        self.topography = topography
        self.draws: ClusterDraws = ClusterDraws(self.sheets, topography)

    def __call__(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> SpatialTerms:
        """Loss of one batch.

        Args:
            outputs: layer name to what its module gave, in its sheet's layout.
            generator: CPU generator that draws the clusters.
        """
        losses, masked = [], []
        device = outputs[self.layers[0]].device
        for layer, clusters in self.draws.draw(generator, device=device).items():
            own = gather(outputs[layer], clusters, compiled=self.compiled).mean(1)
            responses = self.team.gathered(own, dim=1)
            loss, kept = self.form(responses, clusters.proximity)
            units = clusters.units.shape[1]
            losses.append(loss.mean())
            masked.append(1.0 - (kept * (kept - 1)).mean() / (units * (units - 1)))
        total, silent = torch.stack(losses).sum(), torch.stack(masked).mean()
        return weigh({"spatial": (self.alpha, total)}, also_logged={"masked": silent})


def relative_loss(responses_GBN: Tensor, proximity_GNN: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - P) / 2 of each of G clusters (G,), 0 where P is undefined, and how many units counted (G,).

    Args:
        responses_GBN: activity of N units on B images; constant units are left out.
        proximity_GNN: 1 / (1 + distance) of the pairs.
    """
    correlation, defined, kept = _Correlation.apply(_covariance(responses_GBN), proximity_GNN)
    return (1.0 - correlation) / 2 * defined, kept


def absolute_loss(responses_GBN: Tensor, proximity_GNN: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over pairs of |response correlation - proximity| (G,), and how many units counted (G,).

    Args:
        responses_GBN: activity of N units on B images; constant units are left out.
        proximity_GNN: 1 / (1 + distance) of the pairs.
    """
    covariance = _covariance(responses_GBN)
    variance = covariance.diagonal(dim1=1, dim2=2)
    present = variance > FLAT
    keep = present.to(covariance.dtype)
    # The 1 in place of a variance of 0 comes before the root, so no gradient is 0/0.
    scale = torch.where(present, variance, 1.0).rsqrt() * keep
    correlation = covariance * scale.unsqueeze(1) * scale.unsqueeze(2)
    pairs = (keep.unsqueeze(1) * keep.unsqueeze(2)).triu(1)
    distance = ((correlation - proximity_GNN).abs() * pairs).sum((1, 2))
    return distance / pairs.sum((1, 2)).clamp_min(1.0), keep.sum(1)


_FORMS = {"relative": relative_loss, "absolute": absolute_loss}


def _covariance(responses_GBN: Tensor) -> Tensor:
    """(G, N, N) over the images."""
    centred = responses_GBN - responses_GBN.mean(1, keepdim=True)
    return centred.transpose(1, 2) @ centred / centred.shape[1]


class _Correlation(torch.autograd.Function):
    """:func:`pair_correlation` with its closed gradient with respect to the Gram matrix."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor, proximity: Tensor) -> tuple[Tensor, ...]:
        found = pair_correlation(gram, proximity, floor=FLAT, with_gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(found.gradient)
        ctx.mark_non_differentiable(found.defined, found.kept)
        return found.correlation, found.defined, found.kept

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_correlation: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * to_correlation[:, None, None], None
