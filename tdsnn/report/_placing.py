"""Names beside the points of a figure, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""(B, 4): left, bottom, right and top edge of each box, points from the corner of the figure."""
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
    box: Boxes
    """(1, 4)"""
    leader: Boxes
    """The thin line to the point; no box for a name that is near."""


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
    window = np.array([axes.get_window_extent(renderer).extents])
    taken = np.concatenate(
        [
            _around(axes.transData.transform(points), 4.5),
            *(_along(axes.transData.transform(line)) for line in lines),
        ]
    )
    written = leaders = np.empty((0, 4))
    for name, place in names:
        text = axes.text(*place, name, fontsize=font_size, parse_math=False)
        size = text.get_window_extent(renderer)
        text.remove()
        at = axes.transData.transform(place)
        best = min(
            _positions(at, size.width + 2, size.height + 2),
            key=partial(_cost, window=window, taken=taken, written=written, leaders=leaders),
        )
        written = np.concatenate([written, best.box])
        leaders = np.concatenate([leaders, best.leader])
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
            if len(best.leader)
            else None,
        )


def _positions(at: Any, width: float, height: float) -> Iterator[_Position]:
    """The nearest first, and of those the one to the right."""
    half = np.array([width, height]) / 2
    for gap in _GAPS:
        for index in range(_DIRECTIONS):
            angle = 2 * math.pi * index / _DIRECTIONS
            centre = at + np.array([math.cos(angle), math.sin(angle)]) * (gap + half)
            box = np.concatenate([centre - half, centre + half])[None]
            line = _along(np.array([at, centre])) if gap >= _LEADER else np.empty((0, 4))
            leader = line[~_overlapping(line, box)[:, 0]]
            yield _Position(gap=gap, centre=centre, box=box, leader=leader)


def _cost(found: _Position, *, window: Boxes, taken: Boxes, written: Boxes, leaders: Boxes) -> float:
    """Names outside the axes or over each other are worst, then names over what is drawn, then far ones."""
    outside = bool((found.box[:, :2] < window[:, :2]).any() or (found.box[:, 2:] > window[:, 2:]).any())
    # One name over another cannot be read at all, whatever that costs the thin lines.
    return (
        1e6 * (outside + _overlaps(found.box, written))
        + 1000.0 * (_overlaps(found.box, leaders) + _overlaps(found.leader, written))
        + 120.0 * _overlaps(found.box, taken)
        + 5.0 * _overlaps(found.leader, leaders)
        + 2.0 * _overlaps(found.leader, taken)
        + found.gap
    )


def _overlaps(some: Boxes, others: Boxes) -> int:
    return int(_overlapping(some, others).sum())


def _overlapping(some: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Which of A boxes share a place with which of B, (A, B)."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    return np.asarray((low <= high).all(-1))


def _around(centres: Any, reach: float) -> Boxes:
    """Squares around (B, 2) places."""
    return np.concatenate([centres - reach, centres + reach], axis=1)


def _along(corners: Any) -> Boxes:
    """Small boxes along a line through (C, 2) corners."""
    pieces = [
        np.linspace(start, end, max(2, int(math.dist(start, end) / _STEP) + 1))
        for start, end in pairwise(corners)
    ]
    return _around(np.concatenate([corners[:1], *pieces]), 1.0)
