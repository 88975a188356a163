"""Entropies of spike trains, each as the mean of one value per image, in bits.

Spikes are bool (T, N, U): steps, images, units. Units do not interact, so any part of them may be given and
the sums over units added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Spikes = NDArray[np.bool_]
MOST_WORD_STEPS = 12
"""2^12 words for each unit; more need far more images than there are."""


def bernoulli_entropy(p: Floats) -> Floats:
    """-p log2 p - (1 - p) log2(1 - p), bits, of probabilities in [0, 1]; 0 at both ends."""
    return _surprisal(p) * p + _surprisal(1 - p) * (1 - p)


def rate_entropy(spikes: Spikes) -> Floats:
    """(T, N): for each t the sum over units of the entropy of p, the share of the first t steps in which the
    unit fired on this image."""
    counts = np.cumsum(spikes, axis=0, dtype=np.uint16)
    return np.stack(
        [bernoulli_entropy(np.arange(t + 1) / t)[count].sum(1) for t, count in enumerate(counts, start=1)]
    )


def step_entropy(spikes: Spikes) -> Floats:
    """(T, N): for each step the sum over units of -log2 of the share of all images on which the unit did at
    that step what it did on this one. Its mean over images is the sum of the entropies over images."""
    p = spikes.mean(1)
    of_spike, of_silence = _surprisal(p), _surprisal(1 - p)
    gain = np.einsum("tnu,tu->tn", spikes.astype(np.float64), of_spike - of_silence)
    return np.asarray(gain + of_silence.sum(1)[:, None])


def word_entropy(spikes: Spikes) -> Floats:
    """(N,): sum over units of -log2 of the share of all images on which the unit fired in this pattern, plus
    the correction of Miller (1955) and Madow, (K - 1) / (2 N ln 2) for K patterns seen.

    The mean over images is the corrected entropy of the words over images. T is at most
    ``MOST_WORD_STEPS``.
    """
    steps, images, units = spikes.shape
    words = np.tensordot(1 << np.arange(steps), spikes.astype(np.int64), axes=1)
    places = words + (np.arange(units) << steps)
    counts = np.bincount(places.ravel(), minlength=units << steps)
    seen = (counts.reshape(units, -1) > 0).sum(1)
    correction = (seen - 1).sum() / (2 * images * np.log(2))
    return np.asarray(_surprisal(counts / images)[places].sum(1) + correction)


def _surprisal(p: Floats) -> Floats:
    """-log2 p; 0 for what never happens, since it has no weight."""
    with np.errstate(divide="ignore"):
        return np.where(p > 0, -np.log2(p), 0.0)
