"""Maps of category selectivity."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch

from tdsnn.metrics._base import Figure, Measurement, Metric, UnitMap
from tdsnn.metrics._selectivity import SELECTIVE, selectivity
from tdsnn.stats import wilson
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Category"]


class Category(Metric):
    """Which units respond more to one category than to the others, and whether a readout can tell categories.

    t = (m_on - m_off) / sqrt(s2_on / n_on + s2_off / n_off) with population variances over the images of the
    category and over all others; 0 where the denominator is (TDANN, Margalit et al. 2024). One map for each
    category; strength: |t|, 1 for the largest of the layer.

    Figures: ``decoding``, share of images whose category the nearest class mean gets right in five-fold
    cross-validation, each unit in multiples of its variance, with its Wilson interval over images (n);
    ``chance``, the share of the largest category; and by category the share of responding units (n) with
    t > 4, with its Wilson interval as if units were independent. None of them depends on positions. A layer
    whose decoding is not above chance is refused, as it is by all metrics of categories: reduced to the input
    of a small network, the images may show it nothing.
    """

    stimuli: ClassVar[str] = "floc"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "none"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        found = selectivity(responses, seed=seed)
        units = int(found.responding.sum())
        chance = found.chance
        figures = {
            "decoding": found.accuracy,
            "chance": Figure(value=chance, low=chance, high=chance, unit="", n=found.accuracy.n),
        }
        maps = {}
        strength = np.abs(found.t) / np.abs(found.t).max()
        for index, category in enumerate(found.categories):
            selective = int((found.t[index] > SELECTIVE).sum())
            interval = wilson(selective, units)
            figures[category] = Figure(
                value=selective / units, low=interval.low, high=interval.high, unit="", n=units
            )
            maps[category] = UnitMap(
                kind="contrast",
                values=torch.from_numpy(np.where(found.responding, found.t[index], np.nan)),
                strength=torch.from_numpy(strength[index]),
                label=f"selectivity for {category} (t)",
            )
        return Measurement(figures=figures, maps=maps)
