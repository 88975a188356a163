"""Overlap of the regions selective for two categories."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._figures import Floats, resampled
from tdsnn.metrics._selectivity import SELECTIVE, selectivity, shuffled_places
from tdsnn.metrics._windows import tiles
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Overlap"]

PAIRS = (("faces", "bodies"), ("characters", "places"))
WINDOW = 7 / 70
"""Side of a window in sides of the sheet."""
LEAST_UNITS = 6
LEAST_WINDOWS = 10
RESAMPLES = 1000
SHUFFLES = 20


class Overlap(Metric):
    """Do units selective for two categories lie in the same parts of the sheet?

    The sheet is cut into windows of a tenth of its side (7 mm on TDANN's IT sheet); those with more than 5
    responding units count. In each, the share of units with t > 4 (as in ``category``) for either category;
    rho is Spearman's correlation of the two shares over windows, -1 to 1 (TDANN, Margalit et al. 2024, who
    give (1 + rho) / 2; TDSNN, arXiv 2508.04270, does not say which of the two its 0.63 and 0.15 for faces and
    bodies, 0.16 and 0.47 for characters and places are).

    Figures for faces with bodies and for characters with places: ``A_B``, rho; ``A_B_scaled``,
    (1 + rho) / 2; ``A_B_shuffled``, rho on shuffled positions, which is not 0 because one unit can be
    selective for both: mean and central 95 % of 20 shuffles. The other intervals are 95 % percentile
    bootstraps over windows (1,000 resamples); n is the number of windows. It says how regions lie, not how
    topographic the sheet is. Refused as in ``category``, and where all windows have the same share.
    """

    stimuli: ClassVar[str] = "floc"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "none"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        found = selectivity(responses, seed=seed)
        for category in (name for pair in PAIRS for name in pair):
            if category not in found.categories:
                raise UsageError(f"The stimuli '{self.stimuli}' have no category '{category}'.")
        units = found.responding
        tile, count, _ = tiles(sheet.positions.numpy().astype(np.float64)[units], WINDOW * sheet.size_mm)
        selective = found.t[:, units] > SELECTIVE
        orders = list(shuffled_places(selective.shape[1], count=SHUFFLES, seed=seed))
        shares = _shares(selective, tile, count, responses.layer)
        chance = [_shares(selective[:, order], tile, count, responses.layer) for order in orders]
        windows = shares.shape[1]
        drawn = np.random.default_rng(seed).integers(windows, size=(RESAMPLES, windows))
        figures = {}
        for pair in PAIRS:
            first, second = (found.categories.index(name) for name in pair)
            _require_variety(shares, found.categories, (first, second), responses.layer)
            rho = float(spearman(shares[first], shares[second]))
            draws = spearman(shares[first][drawn], shares[second][drawn])
            name = "_".join(pair)
            figures[name] = resampled(draws, value=rho, unit="", n=windows)
            figures[f"{name}_scaled"] = resampled((1 + draws) / 2, value=(1 + rho) / 2, unit="", n=windows)
            by_chance = np.array([float(spearman(some[first], some[second])) for some in chance])
            figures[f"{name}_shuffled"] = resampled(by_chance, unit="", n=SHUFFLES)
        return Measurement(figures=figures)


def spearman(a: Floats, b: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, ties at their mean rank; NaN where one is constant."""
    x, y = (rankdata(values, axis=-1) for values in (a, b))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1)))


def _shares(selective_CU: NDArray[np.bool_], tile_U: NDArray[np.int64], count: int, layer: str) -> Floats:
    """(C, W), share of selective units in each window that holds enough units."""
    units = np.bincount(tile_U, minlength=count)
    kept = units >= LEAST_UNITS
    if kept.sum() < LEAST_WINDOWS:
        raise GateError(
            f"Only {kept.sum()} windows on the sheet of '{layer}' hold {LEAST_UNITS} responding units; "
            f"overlap needs {LEAST_WINDOWS}."
        )
    sums = [np.bincount(tile_U, weights=row, minlength=count) for row in selective_CU]
    return np.asarray(np.array(sums)[:, kept] / units[kept])


def _require_variety(
    shares: Floats, categories: tuple[str, ...], chosen: tuple[int, int], layer: str
) -> None:
    for index in chosen:
        if np.ptp(shares[index]) == 0:
            raise GateError(
                f"All windows on the sheet of '{layer}' hold the same share of units selective for "
                f"{categories[index]} ({shares[index, 0]:.0%}), so there is no overlap to measure."
            )
