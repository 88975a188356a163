"""Smoothness of a map: how much closer than distant units agree (TDANN, Margalit et al. 2024).

Curve: of N units drawn at random, all pairs no farther apart than D, mean difference in 9 equal bins of
distance. Smoothness: (max(curve) - curve[0]) / max(curve), after cutting the curve at its first empty bin: 1
if neighbours agree entirely, near 0 if place says nothing. It is never below 0, as the maximum is at least
the first bin; because of that bias every smoothness comes with its value on shuffled positions.

The formula scores a map without any difference as perfectly smooth; here such a map is refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from tdsnn.errors import GateError
from tdsnn.metrics._base import Measurement
from tdsnn.metrics._figures import Floats, band, resampled
from tdsnn.metrics._tuning import Preference
from tdsnn.topography.sheets import CorticalSheet

BINS = 9
RESAMPLES = 20
UNITS = 1000
REACH = 0.5 * 2**0.5 * (4 / 3) * 3.5 / 1.626
"""D in neighbourhood widths w, 2.03: TDANN's D is half the diagonal of a square of 4/3 hypercolumns of 3.5
mm, 3.30 mm, on its V1 sheet with w = 1.626 mm. In widths it holds for every area and input size."""
FLAT = 0.1
"""Smallest mean difference between random units, as a share of that of uniform preferences."""
LEAST_PAIRS = 10
"""Fewest pairs in the nearest bin of a resample."""


class Falloff(NamedTuple):
    """Differences against distance of V values on R resamples of units."""

    distance_mm: Floats
    """(9,), centres of the bins."""
    ordered: Floats
    """(R, V, 9), NaN in empty bins."""
    shuffled: Floats
    """(R, V, 9), the same units with their places exchanged at random."""
    units: int
    """In each resample."""


def reach_mm(sheet: CorticalSheet, widths: float) -> float:
    """A distance in neighbourhood widths as mm, at most the side of the sheet."""
    return min(widths * sheet.neighbourhood_mm, sheet.size_mm)


def difference_curves(
    values_VN: Floats, positions_N2: Floats, *, reach: float, period: float | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Mean absolute difference (V, 9) of pairs in equal bins of distance up to ``reach``, and pairs (9,)."""
    distances = pdist(positions_N2)
    inside = distances <= reach
    bins = np.minimum((distances[inside] * (BINS / reach)).astype(np.int64), BINS - 1)
    pairs = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=_differences(row, period)[inside], minlength=BINS) for row in values_VN]
    return np.array(sums) / np.where(pairs > 0, pairs, np.nan), pairs


def smoothness(curves: Floats) -> Floats:
    """(max - first) / max along the last axis, up to the first NaN.

    Raises:
        GateError: a curve that is zero throughout, of which the published formula says 1.
    """
    reached = np.logical_and.accumulate(np.isfinite(curves), axis=-1)
    highest = np.where(reached, curves, -np.inf).max(-1)
    if not (highest > 0).all():
        raise GateError("Units do not differ at any distance, so this map has no smoothness.")
    return np.asarray((highest - curves[..., 0]) / highest)


def falloff(
    values_VU: Floats,
    positions_U2: Floats,
    *,
    reach: float,
    resamples: int,
    units: int,
    period: float | None,
    layer: str,
    seed: int,
) -> Falloff:
    """Curves of random subsets of units.

    A subset is at most half of all units: halves drawn without replacement scatter about as much as the
    whole would from sample to sample, whereas larger subsets are nearly the same each time.

    Raises:
        GateError: too few units lie near each other.
    """
    generator = np.random.default_rng(seed)
    total = values_VU.shape[1]
    size = min(units, total // 2)
    count = len(values_VU)
    ordered, shuffled = np.empty((2, resamples, count, BINS))
    for index in range(resamples):
        chosen = generator.choice(total, size, replace=False)
        both = np.concatenate((values_VU[:, chosen], values_VU[:, generator.permutation(chosen)]))
        curves, pairs = difference_curves(both, positions_U2[chosen], reach=reach, period=period)
        if pairs[0] < LEAST_PAIRS:
            raise GateError(
                f"Only {pairs[0]} pairs of {size} units of '{layer}' lie within {reach / BINS:.3g} mm of "
                f"each other; smoothness needs {LEAST_PAIRS}."
            )
        ordered[index], shuffled[index] = curves[:count], curves[count:]
    return Falloff((np.arange(BINS) + 0.5) * reach / BINS, ordered, shuffled, size)


def require_spread(preference: Preference, units: NDArray[np.int64], *, layer: str, seed: int) -> None:
    """Refuse a map on which nearly all of the given units prefer the same.

    Raises:
        GateError: random units differ by less than a tenth of what they would if all preferences were as
            frequent.
    """
    generator = np.random.default_rng(seed)
    some = generator.choice(units, min(UNITS, len(units)), replace=False)
    found = float(_differences(preference.values[some], preference.period).mean())
    if found < FLAT * preference.uniform:
        raise GateError(
            f"Nearly all units of '{layer}' have the same {preference.label.partition(' (')[0]} (random ones "
            f"differ by {found:.3g} {preference.unit}), so there is no map to measure.",
            hint="A constant map would score as perfectly smooth.",
        )


def measure_map(preference: Preference, sheet: CorticalSheet, *, layer: str, seed: int) -> Measurement:
    """Smoothness of a map of preferences, with its value on shuffled positions, the curve and the map.

    Only :attr:`Preference.selective` units count; 20 resamples of 1,000 of them, or of half of them if that
    is fewer. Values are means over resamples, intervals their central 95 %, ``n`` the units of each.

    Raises:
        GateError: nearly all units prefer the same, or too few lie near each other.
    """
    units = preference.selective
    require_spread(preference, units, layer=layer, seed=seed)
    found = falloff(
        preference.values[None, units],
        sheet.positions.numpy().astype(np.float64)[units],
        reach=reach_mm(sheet, REACH),
        resamples=RESAMPLES,
        units=UNITS,
        period=preference.period,
        layer=layer,
        seed=seed,
    )
    name = preference.label.partition(" (")[0]
    distance, label = "distance (mm)", f"difference in {name} ({preference.unit})"
    return Measurement(
        figures={
            "smoothness": resampled(smoothness(found.ordered[:, 0]), unit="", n=found.units),
            "shuffled": resampled(smoothness(found.shuffled[:, 0]), unit="", n=found.units),
        },
        curves={"difference": band(found.distance_mm, found.ordered[:, 0], x_label=distance, y_label=label)},
        maps={"preference": preference.as_map()},
    )


def _differences(values_N: Floats, period: float | None) -> Floats:
    """Absolute difference of each pair i < j, on a circle if there is a period."""
    apart: Floats = pdist(values_N[:, None], "cityblock")
    return apart if period is None else np.minimum(apart, period - apart)
