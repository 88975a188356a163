"""Correlation of responses against distance on the sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from tdsnn.errors import GateError
from tdsnn.metrics._base import Measurement, Metric
from tdsnn.metrics._figures import Floats, band, mean_of_some, resampled
from tdsnn.metrics._windows import members, tiles
from tdsnn.topography.clusters import MIN_UNITS
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["CorrelationDistance"]

BINS = 15
WINDOW = 1.5 / 1.626
"""Side of a window in neighbourhood widths: 1.5 mm on TDANN's V1 sheet, whose width is 1.626 mm."""
LEAST_ACROSS = 3
"""Fewest windows along a side, for sheets that are hardly wider than one window."""
MOST_UNITS = 500
"""Units taken from a window, at random if it holds more."""
RESAMPLES = 1000
ALIKE = 0.01
"""Standard deviation over pairs below which all units count as responding alike."""


class CorrelationDistance(Metric):
    """How much more alike near units respond than units one window apart.

    The sheet is cut into windows of 0.92 neighbourhood widths (1.5 mm on TDANN's V1; smaller on sheets of
    fewer than 3 x 3). In each with at least 5 units: Pearson correlation over stimuli of all pairs, mean in
    15 equal bins of distance up to the side of a window. Units with a constant response have no correlation
    and are left out (TDANN, Margalit et al. 2024; TDSNN, arXiv 2508.04270, fig. 3d).

    Figures, all correlations: ``decay``, nearest minus farthest bin; ``near``, nearest bin; ``shuffled`` and
    ``shuffled_near``, the same with the places of all units exchanged at random. Values are means over
    windows, intervals 95 % percentile bootstraps over windows (1,000 resamples), n is their number. A layer
    whose units all respond alike is refused.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "higher"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        generator = np.random.default_rng(seed)
        rows, positions = _standardised(responses, sheet)
        _require_variety(rows[generator.permutation(len(rows))[:MOST_UNITS]], responses.layer)
        tile, _, side = tiles(positions, WINDOW * sheet.neighbourhood_mm, least=LEAST_ACROSS)
        windows = [generator.permutation(units)[:MOST_UNITS] for units in members(tile, least=MIN_UNITS)]
        if len(windows) < LEAST_ACROSS:
            raise GateError(
                f"Only {len(windows)} windows of {side:.3g} mm on the sheet of '{responses.layer}' hold "
                f"{MIN_UNITS} responding units; correlation against distance needs {LEAST_ACROSS}."
            )
        ordered = _window_curves(rows, positions, windows, side)
        shuffled = _window_curves(generator.permutation(rows), positions, windows, side)
        _require_bins(ordered, responses.layer)
        counts = generator.multinomial(len(windows), np.full(len(windows), 1 / len(windows)), RESAMPLES)
        draws, chance = _resampled_means(ordered, counts), _resampled_means(shuffled, counts)
        mean, chance_mean = mean_of_some(ordered, 0), mean_of_some(shuffled, 0)
        centres = (np.arange(BINS) + 0.5) * side / BINS
        labels = {"x_label": "distance (mm)", "y_label": "response correlation"}
        n = len(windows)
        return Measurement(
            figures={
                "decay": resampled(draws[:, 0] - draws[:, -1], value=float(mean[0] - mean[-1]), unit="", n=n),
                "near": resampled(draws[:, 0], value=float(mean[0]), unit="", n=n),
                "shuffled": resampled(
                    chance[:, 0] - chance[:, -1], value=float(chance_mean[0] - chance_mean[-1]), unit="", n=n
                ),
                "shuffled_near": resampled(chance[:, 0], value=float(chance_mean[0]), unit="", n=n),
            },
            curves={"correlation": band(centres, draws, centre=mean, **labels)},
        )


def _standardised(responses: Responses, sheet: CorticalSheet) -> tuple[NDArray[np.float32], Floats]:
    """Responses (N, S) of the units that vary, with mean 0 and norm 1, and their positions (N, 2)."""
    rates = responses.rates
    varying = rates.amax(0) > rates.amin(0)
    rows = rates[:, varying].T.contiguous()
    rows -= rows.mean(1, keepdim=True)
    rows /= rows.norm(dim=1, keepdim=True)
    return rows.numpy(), sheet.positions[varying].numpy().astype(np.float64)


def _require_variety(rows: NDArray[np.float32], layer: str) -> None:
    correlations = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    if float(correlations.std()) < ALIKE:
        raise GateError(
            f"All units of '{layer}' respond alike (correlation {correlations.mean():.3f} at any distance), "
            f"so distance explains nothing."
        )


def _window_curves(
    rows: NDArray[np.float32], positions: Floats, windows: Sequence[NDArray[np.int64]], side: float
) -> Floats:
    """(W, 15), mean correlation of the pairs of each window in each bin of distance, NaN without pairs."""
    curves = np.full((len(windows), BINS), np.nan)
    for index, units in enumerate(windows):
        distances = pdist(positions[units])
        inside = distances <= side
        bins = np.minimum((distances[inside] * (BINS / side)).astype(np.int64), BINS - 1)
        chosen = rows[units]
        correlations = (chosen @ chosen.T)[np.triu_indices(len(units), 1)]
        pairs = np.bincount(bins, minlength=BINS)
        sums = np.bincount(bins, weights=correlations[inside], minlength=BINS)
        np.divide(sums, pairs, out=curves[index], where=pairs > 0)
    return curves


def _require_bins(curves: Floats, layer: str) -> None:
    filled = np.isfinite(curves[:, (0, -1)]).sum(0)
    if filled.min() < LEAST_ACROSS:
        raise GateError(
            f"Only {filled.min()} windows of '{layer}' hold pairs in the nearest and in the farthest bin "
            f"of distance; at least {LEAST_ACROSS} are needed."
        )


def _resampled_means(curves: Floats, counts_RW: NDArray[np.int64]) -> Floats:
    """(R, 15), mean over windows drawn with replacement, of those that have a value in the bin."""
    there = np.isfinite(curves)
    weights = counts_RW @ there
    return np.asarray((counts_RW @ np.where(there, curves, 0.0)) / np.where(weights > 0, weights, np.nan))
