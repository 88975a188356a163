"""Map of preferred spatial frequency and its smoothness."""

from __future__ import annotations

from typing import ClassVar, Literal

from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._smoothness import measure_map
from tdsnn.metrics._tuning import best_level
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["SpatialFrequency"]


class SpatialFrequency(Metric):
    """How smoothly preferred spatial frequency changes over the sheet.

    Preference: the frequency with the largest response, averaged over all orientations, phases and colours;
    units whose two best frequencies tie have none. Differences are in steps between levels, as in TDANN
    (Margalit et al. 2024). Strength on the map: tuning range, 1 for the widest of the layer.

    Figures ``smoothness`` and ``shuffled``, 0 to 1, units, resamples and intervals as in ``orientation``.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        preference = best_level(
            responses, "cycles_per_image", word="spatial frequency", unit="cycles per image"
        )
        return measure_map(preference, sheet, layer=responses.layer, seed=seed)
