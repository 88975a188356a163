"""Resampling of images with replacement, for what is no mean of one value for each image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdsnn.metrics._base import Curve
from tdsnn.metrics._figures import band

Floats = NDArray[np.float64]
RESAMPLES = 1000


def resampled_means(values_NK: Floats, *, seed: int) -> Floats:
    """(1000, K): means over images, drawn with replacement; equal seeds draw the same images for every K."""
    n = len(values_NK)
    drawn_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    return np.asarray(drawn_RN @ values_NK / n)


def mean_curve(x: Floats, values_NK: Floats, *, x_label: str, y_label: str, seed: int) -> Curve:
    """Mean over images of (N, K), with its 95 % percentile bootstrap; places without a value are left out."""
    means = resampled_means(values_NK, seed=seed)
    return band(x, means, centre=values_NK.mean(0), x_label=x_label, y_label=y_label)
