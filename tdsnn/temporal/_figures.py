"""Figures of values that each image has one of, and curves of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.metrics._base import Curve, Figure
from tdsnn.stats import t_interval, wilson


def over_images(samples: NDArray[Any], *, unit: str) -> Figure:
    """Mean of one value for each image, (n,), with Student's 95 % interval; of one image only the value."""
    values = np.asarray(samples, dtype=np.float64)
    mean, n = float(values.mean()), values.size
    if n < 2:
        return Figure(value=mean, low=mean, high=mean, unit=unit, n=n)
    interval = t_interval(values.tolist())
    # Rounding must not leave the mean of equal values outside.
    return Figure(value=mean, low=min(mean, interval.low), high=max(mean, interval.high), unit=unit, n=n)


def proportion(right: NDArray[np.bool_]) -> Figure:
    """Share of the images, (n,), in percent, with its 95 % Wilson interval."""
    count, n = int(right.sum()), right.size
    interval = wilson(count, n)
    return Figure(value=100 * count / n, low=100 * interval.low, high=100 * interval.high, unit="%", n=n)


def over_time(points: Sequence[Figure], *, y_label: str) -> Curve:
    """One figure for each time step, from the first on, as a curve with their intervals."""
    return Curve(
        x=tuple(float(step) for step in range(1, len(points) + 1)),
        y=tuple(point.value for point in points),
        low=tuple(point.low for point in points),
        high=tuple(point.high for point in points),
        x_label="time steps",
        y_label=y_label,
    )
