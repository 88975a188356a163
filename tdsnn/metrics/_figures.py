"""Figures and curves from resamples."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from tdsnn.metrics._base import Curve, Figure
from tdsnn.stats import percentile_interval

Floats = NDArray[np.float64]


def resampled(samples: Floats, *, unit: str, n: int, value: float | None = None) -> Figure:
    """A value (default: the mean) with the central 95 % of its resamples (R,)."""
    centre = float(np.nanmean(samples)) if value is None else value
    interval = percentile_interval(samples, centre)
    return Figure(value=centre, low=interval.low, high=interval.high, unit=unit, n=n)


def band(x: Floats, curves_RK: Floats, *, x_label: str, y_label: str, centre: Floats | None = None) -> Curve:
    """A curve (default: the mean) with the central 95 % of its resamples; bins that are always empty go."""
    some = np.isfinite(curves_RK).any(0)
    kept = curves_RK[:, some]
    low, high = np.nanpercentile(kept, (2.5, 97.5), axis=0)
    middle = np.nanmean(kept, axis=0) if centre is None else centre[some]
    return Curve(
        x=tuple(x[some].tolist()),
        y=tuple(middle.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        x_label=x_label,
        y_label=y_label,
    )


def mean_of_some(values: Floats, axis: int) -> Floats:
    """Mean over an axis without its NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))
