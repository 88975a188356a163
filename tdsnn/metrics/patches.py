"""Patches of units that prefer one category."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import label

from tdsnn.metrics._base import Figure, Measurement, Metric
from tdsnn.metrics._figures import Floats, resampled
from tdsnn.metrics._selectivity import selectivity, shuffled_places, t_values
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Patches"]

POINTS = 100
SIGMA = 2.4 / 70
"""Width of the Gaussian in sides of the sheet."""
LEAST_T = 2.0
LEAST_AREA, MOST_AREA = 100 / 70**2, 4500 / 70**2
"""Area of a patch in areas of the sheet."""
LEAST_UNITS = 10
BOOTSTRAPS = 40
SHUFFLES = 20


class Patches(Metric):
    """Number and area of the patches of units that respond more to one category than to the others.

    Mean t (as in ``category``) of the responding units, weighted by a Gaussian of 0.034 sides of the sheet,
    at 100 x 100 points, to the nearest of which units are moved; connected regions where it exceeds 2, of
    2.04 to 91.8 % of the sheet and at least 10 responding units. On TDANN's IT sheet of 70 mm: sigma 2.4 mm,
    100 to 4,500 mm² (Margalit et al. 2024, who draw a concave hull around a region's units; here its area is
    that of its points).

    Figures: ``patches``, number over all categories; ``area``, their area in mm²; ``shuffled``, number on
    shuffled positions, mean and central 95 % of 20 shuffles (n); and for each category its number, and its
    area as ``CATEGORY_area``. Intervals: central 95 % of 40 bootstraps over images (n) within categories,
    widened to the value where the noise of resampling moves all of them to one side of it. Neither more nor
    larger patches are in themselves more topographic. Refused as in ``category``.
    """

    stimuli: ClassVar[str] = "floc"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "none"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        found = selectivity(responses, seed=seed)
        units, rates = found.responding, responses.rates
        finder = _Finder(sheet.positions.numpy().astype(np.float64)[units], sheet.size_mm)
        value = finder.count(found.t[:, units])
        labels = found.shows.argmax(0).numpy()
        draws = torch.from_numpy(_draws(labels, np.random.default_rng(seed)))
        resamples = t_values(rates[:, torch.from_numpy(units)], found.shows, draws).numpy()
        # (B, 2, C), number and area.
        bootstrap = np.stack([finder.count(t) for t in resamples])
        shuffled = np.stack(
            [
                finder.count(found.t[:, units][:, order])
                for order in shuffled_places(int(units.sum()), count=SHUFFLES, seed=seed)
            ]
        )
        images = len(labels)

        def figure(kind: int, category: int | slice, unit: str) -> Figure:
            samples = bootstrap[:, kind, category].reshape(BOOTSTRAPS, -1).sum(1)
            return resampled(samples, value=float(np.sum(value[kind, category])), unit=unit, n=images)

        figures = {
            "patches": figure(0, slice(None), "patches"),
            "area": figure(1, slice(None), "mm²"),
            "shuffled": resampled(shuffled[:, 0].sum(1), unit="patches", n=SHUFFLES),
        }
        for index, category in enumerate(found.categories):
            figures[category] = figure(0, index, "patches")
            figures[f"{category}_area"] = figure(1, index, "mm²")
        return Measurement(figures=figures)


class _Finder:
    """Patches of any values on units at given places."""

    def __init__(self, positions_U2: Floats, size_mm: float) -> None:
        low, extent = positions_U2.min(0), np.ptp(positions_U2, axis=0)
        column, row = np.minimum(((positions_U2 - low) * (POINTS / extent)).astype(np.int64), POINTS - 1).T
        self.pixel = row * POINTS + column
        step = np.arange(POINTS) - np.arange(POINTS)[:, None]
        self.kernel_x, self.kernel_y = (
            np.exp(-0.5 * (step * side / (POINTS * SIGMA * size_mm)) ** 2) for side in extent
        )
        self.weight = self._spread(np.ones(len(positions_U2)))
        self.pixel_mm2 = float(extent.prod()) / POINTS**2
        self.sheet_mm2 = size_mm**2

    def count(self, t_CU: Floats) -> Floats:
        """(2, C), number of patches and their area in mm²."""
        return np.array([self._one(self.smoothed(t)) for t in t_CU]).T

    def smoothed(self, t_U: Floats) -> Floats:
        """(100, 100) [y, x], Gaussian-weighted mean; 0 where no unit lies within about two sigma."""
        there = self.weight > np.exp(-2.0)
        return np.where(there, self._spread(t_U) / np.where(there, self.weight, 1.0), 0.0)

    def _spread(self, values_U: Floats) -> Floats:
        sums = np.bincount(self.pixel, weights=values_U, minlength=POINTS**2).reshape(POINTS, POINTS)
        return np.asarray(self.kernel_y @ sums @ self.kernel_x)

    def _one(self, mean_YX: Floats) -> tuple[float, float]:
        regions, count = label(mean_YX > LEAST_T)
        area = np.bincount(regions.ravel(), minlength=count + 1)[1:] * self.pixel_mm2
        units = np.bincount(regions.ravel()[self.pixel], minlength=count + 1)[1:]
        share = area / self.sheet_mm2
        kept = (share >= LEAST_AREA) & (share <= MOST_AREA) & (units >= LEAST_UNITS)
        return float(kept.sum()), float(area[kept].sum())


def _draws(labels_S: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """(40, S), how often each image is drawn when those of each category are drawn with replacement."""
    counts = np.zeros((BOOTSTRAPS, len(labels_S)))
    for category in np.unique(labels_S):
        images = np.flatnonzero(labels_S == category)
        share = np.full(len(images), 1 / len(images))
        counts[:, images] = generator.multinomial(len(images), share, BOOTSTRAPS)
    return counts
