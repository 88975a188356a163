"""Smoothness of the maps of category selectivity."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._figures import band, mean_of_some, resampled
from tdsnn.metrics._selectivity import selectivity
from tdsnn.metrics._smoothness import falloff, reach_mm, smoothness
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["CategorySmoothness"]

REACH = 60 / 31.818
"""Largest distance in neighbourhood widths, 1.89: 60 mm on TDANN's IT sheet, whose width is 31.818 mm."""
RESAMPLES = 25
UNITS = 500


class CategorySmoothness(Metric):
    """How smoothly selectivity for categories changes over the sheet.

    Difference |t_i - t_j| of pairs of units against distance, in 9 bins up to 1.89 neighbourhood widths (60
    mm on TDANN's IT sheet), at most the side of the sheet; t as in ``category``. Smoothness: (max - first) /
    max. 25 resamples of 500 responding units, or of half of them if that is fewer (TDANN, Margalit et al.
    2024; its cut at a mean response of 0.5 is in units of ReLU networks and dropped: rates are 1 at most).

    Figures, 0 to 1: ``smoothness``, mean over categories; ``shuffled``, the same units with their places
    exchanged; and one for each category. Values are means over resamples with their central 95 %; n is the
    units of a resample. Curves: difference divided by its mean on shuffled positions, 1 = chance. Refused as
    in ``category``.
    """

    stimuli: ClassVar[str] = "floc"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        selective = selectivity(responses, seed=seed)
        units = selective.responding
        found = falloff(
            selective.t[:, units],
            sheet.positions.numpy().astype(np.float64)[units],
            reach=reach_mm(sheet, REACH),
            resamples=RESAMPLES,
            units=UNITS,
            period=None,
            layer=responses.layer,
            seed=seed,
        )
        ordered, shuffled = smoothness(found.ordered), smoothness(found.shuffled)
        chance = mean_of_some(found.shuffled, 0)
        figures = {
            "smoothness": resampled(ordered.mean(1), unit="", n=found.units),
            "shuffled": resampled(shuffled.mean(1), unit="", n=found.units),
        }
        curves = {}
        for index, category in enumerate(selective.categories):
            figures[category] = resampled(ordered[:, index], unit="", n=found.units)
            curves[category] = band(
                found.distance_mm,
                found.ordered[:, index] / chance[index],
                x_label="distance (mm)",
                y_label=f"difference in selectivity for {category} (shuffled = 1)",
            )
        return Measurement(figures=figures, curves=curves)
