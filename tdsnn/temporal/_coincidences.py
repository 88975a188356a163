"""Coincident spikes of pairs of units at different distances, and what rates alone make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from torch import Tensor

Floats = NDArray[np.float64]
_IMAGES = 16
"""At a time: spikes of all pairs of these images stay in the cache."""


@dataclass(frozen=True)
class Pairs:
    """P pairs of units of one sheet, by distance.

    Args:
        first, second: (P,) int64, units.
        bins: (P,) int64, the bin of distance of each.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    bins: NDArray[np.int64]

    def select(self, keep: NDArray[np.bool_]) -> Pairs:
        """Those where ``keep`` (P,) is true."""
        return Pairs(self.first[keep], self.second[keep], self.bins[keep])


def draw_pairs(
    positions_U2: Floats,
    windows: list[NDArray[np.int64]],
    *,
    side_mm: float,
    bins: int,
    per_bin: int,
    most_units: int,
    generator: np.random.Generator,
) -> Pairs:
    """Pairs of units within windows, at most ``per_bin`` in each equal bin of distance up to ``side_mm``.

    Args:
        windows: units of each; of more than ``most_units`` as many are drawn.
    """
    none = np.zeros(0, dtype=np.int64)
    parts = [(none, none, none)]
    for units in windows:
        chosen = generator.permutation(units)[:most_units]
        distances = pdist(positions_U2[chosen])
        near = np.flatnonzero(distances <= side_mm)
        first, second = (chosen[index[near]] for index in np.triu_indices(len(chosen), 1))
        parts.append(
            (first, second, np.minimum((distances[near] * (bins / side_mm)).astype(np.int64), bins - 1))
        )
    every = Pairs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    order = generator.permutation(len(every.bins))
    taken = [order[every.bins[order] == one][:per_bin] for one in range(bins)]
    keep = np.zeros(len(order), dtype=bool)
    keep[np.concatenate(taken)] = True
    return every.select(keep)


def autocorrelograms(spikes_NTU: Tensor, kernel_TT: Tensor) -> tuple[Tensor, Tensor]:
    """ACG of each unit, and its mean over all shuffles of the steps within each image, (U,) float64 each.

    ACG_u = (1/N) sum over images and over steps t, s of S_u(t) K_ts S_u(s); 0 of a silent unit.
    """
    steps = spikes_NTU.shape[1]
    observed = torch.zeros(spikes_NTU.shape[2], dtype=torch.float64)
    shuffled = torch.zeros_like(observed)
    same = float(kernel_TT.diagonal().sum()) / steps
    other = (float(kernel_TT.sum()) - float(kernel_TT.diagonal().sum())) / max(steps * (steps - 1), 1)
    for part in torch.split(spikes_NTU, _IMAGES):
        spikes = part.float()
        observed += (spikes * torch.einsum("ts,nsu->ntu", kernel_TT, spikes)).sum((0, 1))
        counts = spikes.sum(1)
        shuffled += (same * counts + other * counts * (counts - 1)).sum(0)
    return observed / len(spikes_NTU), shuffled / len(spikes_NTU)


def synchrony(spikes_NTU: Tensor, pairs: Pairs, kernel_TT: Tensor, *, bins: int) -> tuple[Floats, Floats]:
    """Mean normalised cross-correlogram of each image's pairs in each bin, and its mean over shuffles.

    r_ij = CCG_ij / sqrt(ACG_i ACG_j), with CCG_ij as :func:`autocorrelograms` has it, of S_i(t) K_ts S_j(s):
    STC's (TDSNN, arXiv 2508.04270, eqs. 5 and 6). It is a mean over images, of which these are the summands.
    Shuffling exchanges the steps of each unit within each image, so that counts stay and timing goes; over
    all shuffles the mean of S_i(t) S_j(s) is n_i n_j / T^2, with n the counts of the image.

    Args:
        spikes_NTU: (N, T, U) of {0, 1}.
        pairs: of units that fire at least once.
        kernel_TT: symmetric weight of a pair of spikes at two steps.

    Returns:
        (N, bins) observed and (N, bins) shuffled, NaN in bins without pairs.
    """
    steps = spikes_NTU.shape[1]
    own, own_shuffled = autocorrelograms(spikes_NTU, kernel_TT)
    first, second = torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)
    share = _shares(pairs, bins)
    observed = share / (own[first] * own[second]).sqrt()[:, None]
    by_chance = share / (own_shuffled[first] * own_shuffled[second]).sqrt()[:, None]
    by_chance *= float(kernel_TT.sum()) / steps**2
    found, chance = [], []
    for part in torch.split(spikes_NTU, _IMAGES):
        spikes = part.float()
        smoothed = torch.einsum("ts,nsu->ntu", kernel_TT, spikes)
        coincidences = (spikes[:, :, first] * smoothed[:, :, second]).sum(1)
        counts = spikes.sum(1)
        found.append(coincidences.double() @ observed)
        chance.append((counts[:, first] * counts[:, second]).double() @ by_chance)
    empty = (share.sum(0) == 0)[None]
    return tuple(  # type: ignore[return-value]
        torch.cat(parts).masked_fill(empty, torch.nan).numpy() for parts in (found, chance)
    )


def _shares(pairs: Pairs, bins: int) -> Tensor:
    """(P, bins): one over the number of pairs in the bin of each pair, so that columns add up to 1."""
    counts = np.bincount(pairs.bins, minlength=bins)
    shares = torch.zeros(len(pairs.bins), bins, dtype=torch.float64)
    shares[torch.arange(len(pairs.bins)), torch.from_numpy(pairs.bins)] = torch.from_numpy(
        1.0 / counts[pairs.bins]
    )
    return shares
