"""Map of preferred colour and its smoothness."""

from __future__ import annotations

from typing import ClassVar, Literal

from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._smoothness import measure_map
from tdsnn.metrics._tuning import best_level
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Colour"]


class Colour(Metric):
    """How smoothly preferred colour changes over the sheet.

    Preference: the colour of grating (black and white, or red and cyan) with the larger response, averaged
    over all orientations, frequencies and phases; a tie is no preference. The difference of two units is 0 or
    1. Strength on the map: tuning range, 1 for the widest of the layer (TDANN, Margalit et al. 2024).

    Figures ``smoothness`` and ``shuffled``, 0 to 1, units, resamples and intervals as in ``orientation``.
    Gratings of one colour, which is all that a network for grey images can be shown, are refused.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        preference = best_level(responses, "colour", word="colour")
        return measure_map(preference, sheet, layer=responses.layer, seed=seed)
