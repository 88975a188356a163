"""Names beside the points of a figure, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox

_REACHES = (10.0, 16.0, 24.0, 36.0, 50.0, 68.0, 90.0)
"""Gaps between a point and its name that are tried, points."""
_DIRECTIONS = 16
_LEADER = 17.0
"""Gap, points, from which on a thin line says which point a name belongs to."""
_STEP = 4.0
"""Distance of the boxes that stand for a line, points."""


def place_names(
    axes: Any,
    names: Sequence[tuple[str, tuple[float, float]]],
    *,
    points: Sequence[tuple[float, float]],
    lines: Sequence[Sequence[tuple[float, float]]],
    font_size: float,
) -> None:
    """Write each name near its place, in the given order, wherever it is least in the way.

    The figure needs an Agg canvas of 72 dots per inch, and its layout must be final.

    Args:
        names: with the places of their points, in data coordinates.
        points: places of everything that is drawn as a marker.
        lines: everything that is drawn as a line, corner by corner.
    """
    renderer = axes.figure.canvas.get_renderer()
    window = axes.get_window_extent(renderer)
    taken = [_around(axes.transData.transform(place), 4.5) for place in points]
    taken += [box for line in lines for box in _boxes(axes.transData.transform(np.asarray(line)))]
    written: list[Bbox] = []
    for name, place in names:
        text = axes.text(*place, name, fontsize=font_size, parse_math=False)
        size = text.get_window_extent(renderer)
        text.remove()
        at = axes.transData.transform(place)
        reach, box = min(
            _candidates(at, size.width + 2, size.height + 2),
            key=lambda found: _cost(found, window=window, taken=taken, written=written),
        )
        written.append(box)
        axes.annotate(
            name,
            place,
            xytext=((box.x0 + box.x1) / 2 - at[0], (box.y0 + box.y1) / 2 - at[1]),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=font_size,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 5}
            if reach >= _LEADER
            else None,
        )


def _candidates(at: Any, width: float, height: float) -> Iterator[tuple[float, Bbox]]:
    """Gap and box of every position of a name, the nearest and those to the right first."""
    for reach in _REACHES:
        for index in range(_DIRECTIONS):
            angle = 2 * math.pi * index / _DIRECTIONS
            # From the nearest point of the box the gap is the same in every direction.
            x = at[0] + math.cos(angle) * (reach + width / 2)
            y = at[1] + math.sin(angle) * (reach + height / 2)
            yield reach, Bbox.from_extents(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _cost(
    found: tuple[float, Bbox], *, window: Bbox, taken: Sequence[Bbox], written: Sequence[Bbox]
) -> float:
    reach, box = found
    inside = window.x0 <= box.x0 and box.x1 <= window.x1 and window.y0 <= box.y0 and box.y1 <= window.y1
    return 1000 * (not inside) + 1000 * box.count_overlaps(written) + 30 * box.count_overlaps(taken) + reach


def _around(at: Any, reach: float) -> Bbox:
    return Bbox.from_extents(at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach)


def _boxes(corners: Any) -> Iterator[Bbox]:
    for start, end in pairwise(corners):
        count = max(2, int(math.dist(start, end) / _STEP) + 1)
        for place in np.linspace(start, end, count):
            yield _around(place, 1.0)
