"""Names beside the points of a figure, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox

_GAPS = (10.0, 16.0, 24.0, 36.0, 50.0, 68.0, 90.0, 120.0)
"""Gaps between a point and its name that are tried, points."""
_DIRECTIONS = 16
_LEADER = 17.0
"""Gap, points, from which on a thin line says which point a name belongs to."""
_STEP = 4.0
"""Distance of the boxes that stand for a line, points."""


@dataclass(frozen=True, kw_only=True)
class _Position:
    """Where a name could be, in points from the corner of the figure."""

    gap: float
    centre: Any
    """(2,)"""
    box: Bbox
    leader: list[Bbox]
    """The thin line to the point, as boxes; none for a name that is near."""


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
    leaders: list[Bbox] = []
    for name, place in names:
        text = axes.text(*place, name, fontsize=font_size, parse_math=False)
        size = text.get_window_extent(renderer)
        text.remove()
        at = axes.transData.transform(place)
        best = min(
            _positions(at, size.width + 2, size.height + 2),
            key=lambda found: _cost(found, window=window, taken=taken, written=written, leaders=leaders),
        )
        written.append(best.box)
        leaders.extend(best.leader)
        axes.annotate(
            name,
            place,
            xytext=best.centre - at,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=font_size,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 5}
            if best.leader
            else None,
        )


def _positions(at: Any, width: float, height: float) -> Iterator[_Position]:
    """The nearest first, and of those the one to the right."""
    half = np.array([width, height]) / 2
    for gap in _GAPS:
        for index in range(_DIRECTIONS):
            angle = 2 * math.pi * index / _DIRECTIONS
            centre = at + np.array([math.cos(angle), math.sin(angle)]) * (gap + half)
            box = Bbox([centre - half, centre + half])
            line = _boxes([at, centre]) if gap >= _LEADER else ()
            leader = [piece for piece in line if not piece.overlaps(box)]
            yield _Position(gap=gap, centre=centre, box=box, leader=leader)


def _cost(
    found: _Position,
    *,
    window: Bbox,
    taken: Sequence[Bbox],
    written: Sequence[Bbox],
    leaders: Sequence[Bbox],
) -> float:
    """Names outside the axes or over each other are worst, then names over what is drawn, then far ones."""
    box = found.box
    outside = not (window.containsx(box.x0) and window.containsx(box.x1))
    outside = outside or not (window.containsy(box.y0) and window.containsy(box.y1))
    covered = _overlaps([box], written) + _overlaps([box], leaders) + _overlaps(found.leader, written)
    return (
        1000.0 * (outside + covered)
        + 120.0 * _overlaps([box], taken)
        + 5.0 * _overlaps(found.leader, leaders)
        + 2.0 * _overlaps(found.leader, taken)
        + found.gap
    )


def _overlaps(some: Sequence[Bbox], others: Sequence[Bbox]) -> int:
    return sum(int(one.count_overlaps(others)) for one in some)


def _around(at: Any, reach: float) -> Bbox:
    return Bbox.from_extents(at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach)


def _boxes(corners: Any) -> Iterator[Bbox]:
    for start, end in pairwise(corners):
        count = max(2, int(math.dist(start, end) / _STEP) + 1)
        for place in np.linspace(start, end, count):
            yield _around(place, 1.0)
