"""A small coloured view of a map in the terminal: two rows of the sheet in each line of text."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

if TYPE_CHECKING:
    from tdsnn.metrics._base import UnitMap

_SIDE = 36
_EMPTY = (58, 58, 58)


def sheet_view(unit_map: UnitMap, positions: NDArray[np.float32]) -> list[Text]:
    """Lines of a square view of a ``cyclic`` map; each cell shows the mean of the units in it.

    Args:
        positions: (U, 2), mm.
    """
    means = _cell_means(unit_map, positions)
    lines = []
    for upper, lower in zip(means[::2], means[1::2], strict=True):
        line = Text()
        for top, bottom in zip(upper, lower, strict=True):
            line.append("▀", style=f"{_hex(top)} on {_hex(bottom)}")
        lines.append(line)
    return lines


def _cell_means(unit_map: UnitMap, positions: NDArray[np.float32]) -> NDArray[np.complex128]:
    """(_SIDE, _SIDE) mean direction of doubled angles, of length 0 to 1; NaN where there is no unit."""
    values, strength = unit_map.values.numpy(), unit_map.strength.numpy()
    shown = np.isfinite(values)
    low, high = positions.min(0), positions.max(0)
    cells = ((positions[shown] - low) / np.maximum(high - low, 1e-9) * (_SIDE - 1e-3)).astype(int)
    places = cells[:, 1] * _SIDE + cells[:, 0]
    vectors = strength[shown] * np.exp(2j * np.deg2rad(values[shown]))
    total = np.bincount(places, vectors.real, _SIDE**2) + 1j * np.bincount(places, vectors.imag, _SIDE**2)
    weight = np.bincount(places, strength[shown], _SIDE**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0, total / weight, np.nan).reshape(_SIDE, _SIDE)[::-1]


def _hex(mean: complex) -> str:
    if np.isnan(mean):
        red, green, blue = _EMPTY
    else:
        hue = (np.angle(mean) / (2 * np.pi)) % 1.0
        # Where neighbours disagree the cell turns grey.
        channels = colorsys.hsv_to_rgb(hue, float(min(abs(mean), 1.0)), 0.95)
        red, green, blue = (int(255 * channel) for channel in channels)
    return f"#{red:02x}{green:02x}{blue:02x}"
