"""Pearson's correlation, over the pairs of a neighbourhood, between response similarity and proximity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLAT = 1e-6
"""Smallest variance over pairs (or over trials) that counts as varying; below it a correlation is 0/0."""


class PairCorrelation(NamedTuple):
    """What :func:`pair_correlation` finds for each of G neighbourhoods of N units."""

    correlation: Tensor
    """(G,), 0 where it is undefined."""
    defined: Tensor
    """(G,) bool: at least three units, and pairs that differ."""
    kept: Tensor
    """(G,) how many units counted."""
    gradient: Tensor | None
    """(G, N, N), of the correlation with respect to the Gram matrix, symmetric; None if not asked for."""


@torch.no_grad()
def pair_correlation(
    gram_GNN: Tensor, proximity_GNN: Tensor, *, floor: float, with_gradient: bool
) -> PairCorrelation:
    """Pearson over pairs i < j between c_ij = g_ij / sqrt(g_ii g_jj) and proximity, without silent units.

    A unit whose g_ii is not above ``floor`` gets the scale 0, which removes its pairs from every sum and
    its gradient with them: a surrogate gradient, unlike ReLU's, would let the NaN of 0/0 through.

    The gradient is closed: with the centred values v and n, their variances and P = <v n> / (s_v s_n),
    dP/dc = (n / (s_v s_n) - P v / s_v^2) / pairs; c_ij scales it to dg_ij, and every pair of a unit to
    dg_ii = -sum_j c_ij dP/dc_ij / g_ii. Autograd through the same formula takes ten times as many passes.

    Args:
        gram_GNN: symmetric.
        proximity_GNN: symmetric; its diagonal does not matter.
    """
    diagonal = gram_GNN.diagonal(dim1=1, dim2=2)
    present = diagonal > floor
    keep = present.to(gram_GNN.dtype)
    square = torch.where(present, diagonal, torch.ones_like(diagonal))
    scale = square.rsqrt() * keep
    kept = keep.sum(1)
    pairs = (kept * (kept - 1)).clamp_min(1.0)[:, None, None]
    # Both matrices are symmetric, so sums over i != j stand for sums over the pairs.
    weights = keep.unsqueeze(1) * keep.unsqueeze(2)
    weights.diagonal(dim1=1, dim2=2).zero_()
    scales = scale.unsqueeze(1) * scale.unsqueeze(2)
    similar = gram_GNN * scales * weights
    values, variance = _centred(similar, weights, pairs)
    near, near_variance = _centred(proximity_GNN * weights, weights, pairs)
    defined = (kept >= 3) & ((variance > FLAT) & (near_variance > 0)).flatten()
    safe = torch.where(defined[:, None, None], variance * near_variance, 1.0).rsqrt()
    correlation = (values * near).sum((1, 2), keepdim=True) / pairs * safe * defined[:, None, None]
    if not with_gradient:
        return PairCorrelation(correlation.flatten(), defined, kept, None)
    share = correlation / torch.where(defined[:, None, None], variance, 1.0)
    to_similar = near.mul_(safe).sub_(values.mul_(share)).mul_(defined[:, None, None] / pairs)
    to_diagonal = (similar.mul_(to_similar)).sum(2) / square
    gradient = to_similar.mul_(scales)
    gradient.diagonal(dim1=1, dim2=2).sub_(to_diagonal)
    return PairCorrelation(correlation.flatten(), defined, kept, gradient)


def _centred(values: Tensor, weights: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Values minus their mean where the weight is 1, and their variance (G, 1, 1)."""
    centred = torch.addcmul(values, weights, values.sum((1, 2), keepdim=True) / pairs, value=-1)
    return centred, centred.square().sum((1, 2), keepdim=True) / pairs
