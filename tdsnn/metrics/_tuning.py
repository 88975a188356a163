"""What each unit of a layer prefers, from its tuning curve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._base import MIN_ACTIVE, UnitMap
from tdsnn.metrics._factors import level_means, levels_of
from tdsnn.metrics._figures import Floats
from tdsnn.topography.responses import Responses

TIE = 1e-6
"""Relative difference below which two responses, averaged over many images in float32, are the same."""
PERIOD = 180.0
"""Degrees after which an orientation repeats."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Preferences of the U units of a layer.

    Args:
        values: (U,), degrees in [0, 180) or index of a level; NaN where a unit prefers nothing.
        strength: (U,) in [0, 1].
        tuning_range: (U,), largest minus smallest value of the tuning curve.
        period: after which values repeat, None if they do not.
        uniform: mean difference between random units if all preferences were equally frequent.
        unit: of a difference.
        label: of the map, with the unit.
        levels: names of the levels, of a preference for levels.
    """

    values: Floats
    strength: Floats
    tuning_range: Floats
    period: float | None
    uniform: float
    unit: str
    label: str
    levels: tuple[str, ...] = ()

    @cached_property
    def tuned(self) -> NDArray[np.int64]:
        """Units that have a preference."""
        return np.flatnonzero(np.isfinite(self.values))

    @cached_property
    def selective(self) -> NDArray[np.int64]:
        """Tuned units whose tuning range reaches the 75th percentile over tuned units.

        TDANN takes those above it. Spike counts tie, and "above" can then leave hardly any unit; without
        ties the two differ by one unit.
        """
        ranges = self.tuning_range[self.tuned]
        return self.tuned[ranges >= np.quantile(ranges, 0.75)]

    def as_map(self) -> UnitMap:
        """The map to be drawn."""
        kind: Literal["cyclic", "levels"] = "levels" if self.period is None else "cyclic"
        return UnitMap(
            kind=kind,
            values=torch.from_numpy(self.values),
            strength=torch.from_numpy(self.strength),
            label=self.label,
            levels=self.levels,
        )


def orientation(responses: Responses) -> Preference:
    """Preferred orientation, the direction of the vector sum of the tuning curve.

    Raises:
        GateError: hardly any unit has one.
        UsageError: orientations that are not evenly spaced over 180 degrees, which would bias the sum.
    """
    levels, shows = levels_of(responses.stimuli, "orientation_deg")
    turns = np.exp(2j * np.deg2rad(np.array([float(level) for level in levels])))
    if len(levels) < 3 or abs(turns.sum()) > 1e-3:
        raise UsageError(
            f"Preferred orientations need at least three orientations, evenly spaced over 180 degrees, not "
            f"{', '.join(str(level) for level in levels)}."
        )
    curves_LU = level_means(responses.rates, shows).numpy()
    resultant = turns @ curves_LU
    total = np.abs(curves_LU).sum(0)
    tuned = np.abs(resultant) > TIE * total
    values = np.where(tuned, np.rad2deg(np.angle(resultant)) / 2 % PERIOD, np.nan)
    preference = Preference(
        # The remainder of a tiny negative angle rounds up to the period itself.
        values=np.where(values == PERIOD, 0.0, values),
        strength=np.where(tuned, np.abs(resultant) / np.where(total > 0, total, 1.0), 0.0),
        tuning_range=np.ptp(curves_LU, axis=0),
        period=PERIOD,
        uniform=PERIOD / 4,
        unit="degrees",
        label="preferred orientation (degrees)",
    )
    return _checked(preference, responses.layer, "orientation")


def best_level(responses: Responses, factor: str, *, word: str, unit: str = "") -> Preference:
    """Preferred level of a factor, the largest value of the tuning curve; a tie is no preference.

    Args:
        word: what the factor is called.
        unit: of its levels.

    Raises:
        GateError: there is one level only, or hardly any unit has a preference.
    """
    levels, shows = levels_of(responses.stimuli, factor)
    if len(levels) < 2:
        raise GateError(
            f"The {responses.stimuli.name} shown to '{responses.layer}' have one {word} only, so no unit can "
            f"prefer one.",
            hint=f"Measure the other metrics; this one needs images that differ in {word}.",
        )
    curves_LU = level_means(responses.rates, shows).numpy()
    second, best = np.sort(curves_LU, axis=0)[-2:]
    tuned = best - second > TIE * np.abs(curves_LU).max(0)
    spread = np.ptp(curves_LU, axis=0)
    count = len(levels)
    preference = Preference(
        values=np.where(tuned, curves_LU.argmax(0).astype(np.float64), np.nan),
        strength=np.where(tuned, spread / max(float(spread.max()), 1e-300), 0.0),
        tuning_range=spread,
        period=None,
        uniform=(count * count - 1) / (3 * count),
        unit="levels",
        label=f"preferred {word}" + (f" ({unit})" if unit else ""),
        levels=tuple(level if isinstance(level, str) else f"{level:.3g}" for level in levels),
    )
    return _checked(preference, responses.layer, word)


def _checked(preference: Preference, layer: str, word: str) -> Preference:
    if len(preference.tuned) < MIN_ACTIVE:
        raise GateError(
            f"Only {len(preference.tuned)} of {len(preference.values)} units of '{layer}' prefer one {word} "
            f"to the others; a map needs at least {MIN_ACTIVE}."
        )
    return preference
