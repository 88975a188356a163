"""Figures of what time metrics found, as PNG and SVG: over time, over layers, and against the twin."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from tdsnn.drawing import COLOURS, drawing, save_in_all_formats
from tdsnn.results import Key, Result, Shift
from tdsnn.table import short
from tdsnn.time_tables import by_metric

_PANEL = 2.7
"""Side of one panel, inches."""
_COLUMNS = 4
_CHARACTERS_PER_INCH = 15
_STEPS = "viridis"
Record = Mapping[str, Any]


def draw(result: Result, folder: Path) -> tuple[Path, ...]:
    """Draw every time metric of every group of models into a folder and return the files.

    ``GROUP-METRIC-curves``: lines over time, models together. ``-layers``: what each layer has one figure
    of. ``-shift``: the difference to the twin for each layer, one line for each number of time steps.

    Raises:
        TdsnnError: the folder cannot be written.
    """
    written: list[Path] = []
    for group in result.groups:
        for title, (records, shifts) in by_metric(result, group).items():
            stem = re.sub(r"[^\w.=+-]+", "-", f"{short(group[0])}-{title}")
            with drawing(stem):
                for kind, canvas in _canvases(records, shifts):
                    _caption(canvas, result, title, kind, group)
                    written += save_in_all_formats(canvas, folder / f"{stem}-{kind}")
    return tuple(written)


def _canvases(records: Sequence[Record], shifts: Mapping[str, Shift]) -> Iterator[tuple[str, Canvas]]:
    if curves := sorted(_keys(records, "curves"), key=lambda key: key.quantity):
        yield "curves", _curves(records, curves)
    if keys := [key for key in _keys(records, "figures") if key.place is not None]:
        yield "layers", _layers(records, keys)
    placed = {key: shift for text, shift in shifts.items() if (key := Key.parse(text)).place is not None}
    if placed:
        yield "shift", _shifts(placed)


def _keys(records: Sequence[Record], part: str) -> list[Key]:
    return [Key.parse(text) for text in dict.fromkeys(text for one in records for text in one[part])]


def _curves(records: Sequence[Record], keys: Sequence[Key]) -> Canvas:
    """One panel for each curve; lines: models with their 95 % bands."""
    canvas, panels = _grid(len(keys))
    for axes, key in zip(panels, keys, strict=True):
        for record, colour in zip(records, COLOURS, strict=False):
            curve = record["curves"].get(str(key))
            if curve is None:
                continue
            axes.plot(curve["x"], curve["y"], ".-", color=colour, label=short(record["model"]), linewidth=1.2)
            axes.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
            if all(float(x).is_integer() for x in curve["x"]):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel(curve["x_label"], fontsize=8)
            axes.set_ylabel(curve["y_label"], fontsize=8)
        axes.set_title(" ".join(filter(None, (key.place, key.quantity))), fontsize=9)
    _legend(canvas, panels[0])
    return canvas


def _layers(records: Sequence[Record], keys: Sequence[Key]) -> Canvas:
    """One panel for each quantity and number of steps; lines: models over the layers."""
    kinds = list(dict.fromkeys(key._replace(place=None) for key in keys))
    canvas, panels = _grid(len(kinds), width=1.3)
    for axes, kind in zip(panels, kinds, strict=True):
        places = [key.place for key in keys if key._replace(place=None) == kind]
        for record, colour in zip(records, COLOURS, strict=False):
            found = [record["figures"].get(str(kind._replace(place=place))) for place in places]
            points = [(x, one["value"], one["low"], one["high"]) for x, one in enumerate(found) if one]
            _points(axes, points, colour=colour, label=short(record["model"]))
            axes.set_ylabel(next((one["unit"] for one in found if one), ""), fontsize=8)
        _name_places(axes, places)
        axes.set_title(kind.quantity + (f", T = {kind.steps}" if kind.steps else ""), fontsize=9)
    _legend(canvas, panels[0])
    return canvas


def _shifts(shifts: Mapping[Key, Shift]) -> Canvas:
    """One panel for each quantity; lines: numbers of time steps over the layers."""
    quantities = list(dict.fromkeys(key.quantity for key in shifts))
    canvas, panels = _grid(len(quantities), width=1.8)
    for axes, quantity in zip(panels, quantities, strict=True):
        own = [key for key in shifts if key.quantity == quantity]
        places = list(dict.fromkeys(key.place for key in own))
        steps = sorted({key.steps for key in own}, key=lambda one: one or 0)
        colours = mpl.colormaps[_STEPS].resampled(len(steps) + 1)
        for number, t in enumerate(steps):
            found = {key.place: shifts[key].difference for key in own if key.steps == t}
            points = [(places.index(place), one.value, one.low, one.high) for place, one in found.items()]
            _points(axes, points, colour=colours(number), label=f"T = {t}" if t else "")
        axes.axhline(0, color="black", linewidth=0.6)
        _name_places(axes, places)
        unit = shifts[own[0]].difference.unit
        axes.set_ylabel(f"difference ({unit})" if unit else "difference", fontsize=8)
        axes.set_title(quantity, fontsize=9)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7, frameon=False)
    return canvas


def _points(
    axes: Any, points: Sequence[tuple[float, float, float, float]], *, colour: Any, label: str
) -> None:
    """Places, values and ends of the intervals as a line with whiskers."""
    if not points:
        return
    x, y, low, high = zip(*points, strict=True)
    reach = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
    axes.errorbar(x, y, reach, fmt=".-", color=colour, label=label, linewidth=1.2, elinewidth=0.8, capsize=2)


def _grid(count: int, *, width: float = 1.0) -> tuple[Canvas, list[Any]]:
    """A canvas with that many panels, ``width`` times as wide as high."""
    columns = min(count, max(1, round(_COLUMNS / width)))
    rows = -(-count // columns)
    size = (max(1.4, columns) * _PANEL * width, (rows + 0.35) * _PANEL)
    canvas = Canvas(figsize=size, layout="constrained")
    panels = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.yaxis.get_offset_text().set_fontsize(7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[count:]:
        axes.set_axis_off()
    return canvas, panels[:count]


def _name_places(axes: Any, places: Sequence[str | None]) -> None:
    turned = {"rotation": 45, "ha": "right"} if len(places) > 3 else {}
    axes.set_xticks(range(len(places)), [str(place) for place in places], fontsize=7, **turned)


def _legend(canvas: Canvas, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        canvas.legend(
            handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False
        )


def _caption(canvas: Canvas, result: Result, title: str, kind: str, group: Sequence[str]) -> None:
    settings = result.settings
    text = f"{title}; {settings['dataset']}, first {settings['n']:,} test images. "
    if kind == "shift":
        first, second = map(short, group)
        text += f"{first} minus {second} on the same images; whiskers: 95 %, bootstrap over images."
    else:
        text += "Bands and whiskers: 95 % intervals."
    lines = textwrap.wrap(text, int(canvas.get_figwidth() * _CHARACTERS_PER_INCH))
    canvas.supxlabel("\n".join(lines), fontsize=8, color="#444444", parse_math=False)
