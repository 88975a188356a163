"""Pinwheels of the orientation map."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from tdsnn.errors import GateError
from tdsnn.metrics._base import Figure, Measurement, Metric
from tdsnn.metrics._figures import Floats, resampled
from tdsnn.metrics._smoothness import require_spread
from tdsnn.metrics._tuning import orientation
from tdsnn.stats import poisson
from tdsnn.topography.clusters import MIN_UNITS
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

__all__ = ["Pinwheels"]

WINDOW, STRIDE, HYPERCOLUMN = 1.5 / 1.626, 0.45 / 1.626, 3.5 / 1.626
"""In neighbourhood widths: 1.5, 0.45 and 3.5 mm on TDANN's V1 sheet, whose width is 1.626 mm."""
WINDING = 0.3
"""Smallest winding number of a candidate; on a closed loop it is a multiple of 1/2."""
SHUFFLES = 20
QUANTILE = 0.05
LEAST_PIXELS = 2
_LOOP = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""The eight neighbours of a pixel (row, column), going round."""

Complexes = NDArray[np.complex128]


class Pinwheels(Metric):
    """Singularities of the smoothed orientation map per square hypercolumn; in animals about pi.

    Field: mean of exp(2i theta) over the tuned units in windows of 0.92 neighbourhood widths at a stride of
    0.28 (1.5 and 0.45 mm on TDANN's V1), where at least 5 units lie. Candidate: a pixel around whose eight
    neighbours theta winds by half a turn or more (|winding number| > 0.3), and whose neighbours are more
    orderly than chance: their mean circular standard deviation, 90/pi sqrt(-2 ln |field|) degrees, is below
    the 5th percentile of that mean on 20 shuffles of the positions. Pinwheel: at least 2 touching candidates
    of one sign; the loops around a singularity make 4. TDANN's limit, 0.3 for the deviation at the pixel
    itself divided by the number of units in its window, depends on the density of units; and at the pixel
    itself orientations are at their most spread in the middle of a true pinwheel.

    Figures: ``density``, pinwheels per square hypercolumn (side 2.15 widths, 3.5 mm on TDANN's V1) of the
    area whose pixels have eight neighbours; target pi (Kaschube et al. 2010, doi:10.1126/science.1194869).
    ``positive`` and ``negative``, pinwheels along whose loop from x to y orientation grows or falls. Their
    intervals are exact Poisson ones (Garwood 1936), wide for regular maps; n is the number of windows.
    ``shuffled``, density on shuffled positions: mean and central 95 % of the 20 shuffles.

    Refused: nearly constant maps, sheets whose searched area is below one square hypercolumn, and sheets on
    most of which windows hold fewer than 5 units.
    """

    stimuli: ClassVar[str] = "gratings"
    direction: ClassVar[Literal["higher", "lower", "none"]] = "none"

    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """See :meth:`Metric.compute`."""
        preference = orientation(responses)
        tuned = preference.tuned
        require_spread(preference, tuned, layer=responses.layer, seed=seed)
        doubled = np.exp(2j * np.deg2rad(preference.values[tuned]))
        windows = _Windows(sheet.positions.numpy().astype(np.float64)[tuned], sheet.neighbourhood_mm)
        windows.check(responses.layer)
        generator = np.random.default_rng(seed)
        shuffled = [windows.field(generator.permutation(doubled)) for _ in range(SHUFFLES)]
        limit = float(np.nanquantile(np.stack([spread_around(field) for field in shuffled]), QUANTILE))
        positive, negative = count_pinwheels(windows.field(doubled), limit)
        area = windows.hypercolumns
        chance = np.array([sum(count_pinwheels(field, limit)) / area for field in shuffled])
        n = windows.filled
        return Measurement(
            figures={
                "density": _counted(positive + negative, 1 / area, "per hypercolumn²", n),
                "positive": _counted(positive, 1.0, "pinwheels", n),
                "negative": _counted(negative, 1.0, "pinwheels", n),
                "shuffled": resampled(chance, unit="per hypercolumn²", n=SHUFFLES),
            },
        )


def spread_deg(field: Complexes) -> Floats:
    """Circular standard deviation of orientations whose mean of exp(2i theta) is given, degrees."""
    with np.errstate(divide="ignore"):
        return np.asarray(90 / np.pi * np.sqrt(-2 * np.log(np.minimum(np.abs(field), 1.0))))


def winding_numbers(field: Complexes) -> Floats:
    """Turns of theta around each inner pixel, (Y - 2, X - 2), NaN beside empty windows."""
    around = _neighbours(field)
    steps = [
        np.angle(later * earlier.conj())
        for earlier, later in zip(around, around[1:] + around[:1], strict=True)
    ]
    # The angle of the field is twice the orientation.
    return np.asarray(sum(steps) / (4 * np.pi))


def spread_around(field: Complexes) -> Floats:
    """Mean circular standard deviation around each inner pixel, (Y - 2, X - 2), degrees."""
    return np.asarray(np.mean([spread_deg(part) for part in _neighbours(field)], axis=0))


def count_pinwheels(field: Complexes, limit_deg: float) -> tuple[int, int]:
    """Positive and negative pinwheels among loops of less than a mean circular standard deviation."""
    turns = winding_numbers(field)
    orderly = spread_around(field) < limit_deg
    return _components((turns > WINDING) & orderly), _components((turns < -WINDING) & orderly)


def _neighbours(field: Complexes) -> list[Complexes]:
    rows, columns = field.shape
    return [field[1 + y : rows - 1 + y, 1 + x : columns - 1 + x] for y, x in _LOOP]


def _components(candidates: NDArray[np.bool_]) -> int:
    labels, _ = label(candidates)
    return int((np.bincount(labels.ravel())[1:] >= LEAST_PIXELS).sum())


def _counted(count: int, scale: float, unit: str, n: int) -> Figure:
    interval = poisson(count)
    return Figure(value=count * scale, low=interval.low * scale, high=interval.high * scale, unit=unit, n=n)


class _Windows:
    """Overlapping square windows on a grid, all of them within the range of the units.

    A window's sum over units is a product of matrices, since being inside is a product over x and y.
    """

    def __init__(self, positions_U2: Floats, width_mm: float) -> None:
        half, self.stride = WINDOW * width_mm / 2, STRIDE * width_mm
        self.near_x, self.near_y = (
            (
                np.abs(axis - np.arange(axis.min() + half, axis.max() - half + 1e-9, self.stride)[:, None])
                <= half
            ).astype(np.float32)
            for axis in positions_U2.T
        )
        self.counts = self.near_y @ self.near_x.T
        self.filled = int((self.counts >= MIN_UNITS).sum())
        inner = max(len(self.near_y) - 2, 0) * max(len(self.near_x) - 2, 0)
        self.hypercolumns = inner * (STRIDE / HYPERCOLUMN) ** 2

    def check(self, layer: str) -> None:
        """Refuse a sheet that is too small or too sparse."""
        if self.hypercolumns < 1:
            raise GateError(
                f"Windows cover {self.hypercolumns:.2g} square hypercolumns of the sheet of '{layer}'; "
                f"pinwheels need at least one."
            )
        if self.filled < self.counts.size / 2:
            raise GateError(
                f"Only {self.filled} of {self.counts.size} windows on the sheet of '{layer}' hold "
                f"{MIN_UNITS} units that prefer an orientation; pinwheels need half of them."
            )

    def field(self, doubled_U: Complexes) -> Complexes:
        """(Y, X), mean of the units' exp(2i theta) in each window, NaN with fewer than 5 units."""
        real, imaginary = (
            (self.near_y * part.astype(np.float32)) @ self.near_x.T
            for part in (doubled_U.real, doubled_U.imag)
        )
        field = (real + 1j * imaginary) / np.maximum(self.counts, 1)
        return np.where(self.counts >= MIN_UNITS, field, np.nan).astype(np.complex128)
