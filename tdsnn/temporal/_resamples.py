"""Resampling of images with replacement, for what is no mean of one value for each image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdsnn.metrics._base import Curve
from tdsnn.metrics._figures import band
from tdsnn.stats import resampled_means

Floats = NDArray[np.float64]
RESAMPLES = 1000


def mean_curve(x: Floats, values_NK: Floats, *, x_label: str, y_label: str, seed: int) -> Curve:
    """Mean over images of (N, K), with its 95 % percentile bootstrap; places without a value are left out."""
    means = resampled_means(values_NK, seed=seed, resamples=RESAMPLES)
    return band(x, means, centre=values_NK.mean(0), x_label=x_label, y_label=y_label)
