"""Map of preferred orientation and its smoothness."""

from __future__ import annotations

from typing import ClassVar, Literal

from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._smoothness import measure_map
from tdsnn.metrics._tuning import orientation
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Orientation"]


class Orientation(Metric):
    """How smoothly preferred orientation changes over the sheet.

    Tuning curve R_k: mean response to orientation theta_k over all frequencies, phases and colours.
    Preference: direction of the vector sum, 1/2 arg sum_k R_k exp(2i theta_k), degrees in [0, 180) (TDSNN,
    arXiv 2508.04270, fig. 3). Strength on the map, 0 to 1: one minus the circular variance,
    |sum_k R_k exp(2i theta_k)| / sum_k |R_k|.

    Smoothness (TDANN, Margalit et al. 2024): (max - first) / max of the mean difference in preference, folded
    to 90 degrees, against distance, in 9 bins up to 2.03 neighbourhood widths (3.30 mm on TDANN's V1). Units:
    the quarter with the largest tuning range; 20 resamples of 1,000 of them, or of half if that is fewer.
    Figures ``smoothness`` and ``shuffled`` (the same units with their places exchanged), 0 to 1: means over
    the resamples with the central 95 % of them; n is the units of a resample. Values of other papers have
    other constants and cannot be compared. Nearly constant maps are refused.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        return measure_map(orientation(responses), sheet, layer=responses.layer, seed=seed)
