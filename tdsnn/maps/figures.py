"""Figures of a survey, as PNG and SVG: maps on the sheets, curves over distance, bars over layers."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas

from tdsnn.drawing import COLOURS, CONTROL, drawing, save_in_all_formats
from tdsnn.maps.survey import SHUFFLED, Survey
from tdsnn.metrics._base import METRICS, Curve, UnitMap
from tdsnn.progress import Progress, silent

_PANEL = 3.1
"""Side of one panel, inches."""
_PIXELS = 480
"""Side of the image of a map."""
_WHEEL = "hsv"


def draw(
    survey: Survey,
    folder: Path,
    *,
    progress: Progress = silent,
) -> tuple[Path, ...]:
    """Draw everything that was measured into a folder and return the files.

    One figure of maps for each layer and metric, subjects side by side; one of curves and one of bars for
    each metric, layers side by side.

    Raises:
        TdsnnError: the folder cannot be written.
    """
    metrics = tuple(dict.fromkeys(entry.metric for entry in survey.entries))
    plans: list[tuple[str, Callable[..., Canvas | None], tuple[str, ...]]] = [
        *((f"{metric}-bars", _bars, (metric,)) for metric in metrics),
        *((f"{metric}-curves", _curves, (metric,)) for metric in metrics),
        *(
            (f"{layer}-{metric}-maps", _maps, (layer, metric))
            for metric in metrics
            for layer in survey.sheets
        ),
    ]
    written: list[Path] = []
    for done, (name, picture, place) in enumerate(plans):
        progress(done, len(plans), f"drawing {name}")
        with drawing(name):
            canvas = picture(survey, *place)
            if canvas is not None:
                written += save_in_all_formats(canvas, folder / name)
    return tuple(written)


def _maps(survey: Survey, layer: str, metric: str) -> Canvas | None:
    """Rows: maps of the metric. Columns: subjects."""
    found = {name: one.maps for name, one in survey.find(layer, metric).items() if one.maps}
    if not found:
        return None
    keys = list(dict.fromkeys(key for maps in found.values() for key in maps))
    subjects = [name for name in survey.subjects if name in found]
    canvas = Canvas(
        figsize=(_PANEL * (len(subjects) + 0.45), _PANEL * (len(keys) + 0.35)), layout="constrained"
    )
    grid = canvas.subplots(len(keys), len(subjects), squeeze=False, sharex=True, sharey=True)
    for row, key in zip(grid, keys, strict=True):
        maps = {name: found[name][key] for name in subjects if key in found[name]}
        scale = _scale(list(maps.values()))
        for axes, name in zip(row, subjects, strict=True):
            axes.set_title(name, fontsize=9)
            if name in maps:
                _scatter(axes, survey.sheet(name, layer).positions.numpy(), maps[name], scale)
            else:
                axes.set_axis_off()
        row[0].set_ylabel(f"{next(iter(maps.values())).label}\nmm", fontsize=8)
        _legend(canvas, row, next(iter(maps.values())), scale)
    sheet = survey.sheets[layer]
    _caption(
        canvas,
        survey,
        metric,
        f"{layer}, {len(sheet.positions):,} units on {sheet.size_mm:g} x {sheet.size_mm:g} mm "
        f"({sheet.preparation}); size of a point: how selective the unit is.",
    )
    return canvas


def _scale(maps: Sequence[UnitMap]) -> dict[str, Any]:
    """Colours shared by the panels of a row."""
    first = maps[0]
    if first.kind == "cyclic":
        return {"cmap": _WHEEL, "vmin": 0.0, "vmax": 180.0}
    if first.kind == "levels":
        return {
            "cmap": mpl.colormaps["viridis"].resampled(len(first.levels)),
            "vmin": -0.5,
            "vmax": len(first.levels) - 0.5,
        }
    finite = np.concatenate([one.values[one.values.isfinite()].numpy() for one in maps])
    reach = float(np.quantile(np.abs(finite), 0.99)) if len(finite) else 1.0
    return {"cmap": "RdBu_r", "vmin": -(reach or 1.0), "vmax": reach or 1.0}


def _scatter(axes: Any, positions: np.ndarray[Any, Any], unit_map: UnitMap, scale: Mapping[str, Any]) -> None:
    """A disc for each unit; units without a value are small and grey.

    Painted into an image here: matplotlib takes seconds for tens of thousands of discs of their own sizes.
    """
    values, strength = unit_map.values.numpy(), unit_map.strength.numpy()
    shown = np.isfinite(values)
    colour = mpl.cm.ScalarMappable(mpl.colors.Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])
    discs = np.full((len(values), 4), 228, dtype=np.uint8)
    discs[shown] = colour.to_rgba(values[shown], bytes=True)
    discs[:, 3] = 255
    size = np.where(shown, np.clip(strength, 0, 1), 0.0)
    # Discs of fully selective units just cover the sheet.
    radius = _PIXELS * np.sqrt((0.15 + 0.85 * size) / max(len(values), 1) / 2)
    low, high = positions.min(0), positions.max(0)
    places = (positions - low) / np.maximum(high - low, 1e-9) * (_PIXELS - 1)
    order = np.argsort(size)
    image = _paint(places[order].round().astype(int), discs[order], radius[order])
    axes.imshow(image, extent=(low[0], high[0], low[1], high[1]), origin="lower", interpolation="nearest")
    axes.tick_params(labelsize=7)


def _paint(
    places_N2: np.ndarray[Any, Any], colours_N4: np.ndarray[Any, Any], radii_N: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """(P, P, 4) uint8 image of discs, the later ones in front; positions and radii in pixels."""
    image = np.zeros((_PIXELS, _PIXELS, 4), dtype=np.uint8)
    reach = int(radii_N.max())
    # From the rim to the centre, so that no disc loses its middle to a neighbour.
    offsets = sorted(product(range(-reach, reach + 1), repeat=2), key=lambda at: -(at[0] ** 2 + at[1] ** 2))
    for dx, dy in offsets:
        chosen = radii_N**2 >= dx**2 + dy**2
        x, y = (places_N2[chosen] + (dx, dy)).clip(0, _PIXELS - 1).T
        image[y, x] = colours_N4[chosen]
    return image


def _legend(canvas: Canvas, row: Any, unit_map: UnitMap, scale: Mapping[str, Any]) -> None:
    if unit_map.kind == "cyclic":
        _hue_wheel(row[-1], scale)
        return
    mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])
    bar = canvas.colorbar(mappable, ax=row[-1], fraction=0.05)
    bar.ax.tick_params(labelsize=7)
    if unit_map.levels:
        bar.set_ticks(range(len(unit_map.levels)), labels=list(unit_map.levels))


def _hue_wheel(axes: Any, scale: Mapping[str, Any]) -> None:
    """Short bars around a circle, each drawn at the orientation that its colour stands for."""
    wheel = axes.inset_axes((1.06, 0.68, 0.3, 0.3))
    for degrees in np.arange(0, 180, 22.5):
        angle = np.deg2rad(degrees)
        colour = mpl.colormaps[scale["cmap"]](degrees / 180)
        centre = np.array([np.cos(2 * angle), np.sin(2 * angle)])
        reach = 0.28 * np.array([np.cos(angle), np.sin(angle)])
        wheel.plot(*np.stack([centre - reach, centre + reach]).T, color=colour, linewidth=2.5)
    wheel.set_xlim(-1.4, 1.4)
    wheel.set_ylim(-1.4, 1.4)
    wheel.set_aspect("equal")
    wheel.set_axis_off()


def _curves(survey: Survey, metric: str) -> Canvas | None:
    """Rows: curves of the metric. Columns: layers. Lines: subjects with their 95 % bands."""
    found = {layer: survey.find(layer, metric) for layer in survey.sheets}
    keys = list(dict.fromkeys(key for one in found.values() for m in one.values() for key in m.curves))
    if not keys:
        return None
    layers = [layer for layer, one in found.items() if any(m.curves for m in one.values())]
    canvas = Canvas(
        figsize=(0.8 * _PANEL * len(layers), 0.9 * _PANEL * (len(keys) + 0.2)), layout="constrained"
    )
    grid = canvas.subplots(len(keys), len(layers), squeeze=False)
    for row, key in zip(grid, keys, strict=True):
        for axes, layer in zip(row, layers, strict=True):
            for place, name in enumerate(survey.subjects):
                if name in found[layer] and key in found[layer][name].curves:
                    _line(axes, found[layer][name].curves[key], name, _colour(name, place))
            axes.set_title(layer if len(keys) == 1 else f"{layer}: {key.replace('_', ' ')}", fontsize=9)
            axes.tick_params(labelsize=7)
    handles, labels = grid[0][0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8, frameon=False)
    _caption(canvas, survey, metric, "Bands: 95 % intervals.")
    return canvas


def _line(axes: Any, curve: Curve, name: str, colour: str) -> None:
    axes.plot(curve.x, curve.y, color=colour, label=name, linewidth=1.5)
    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel(curve.x_label, fontsize=8)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(textwrap.fill(curve.y_label, 30), fontsize=8)


def _bars(survey: Survey, metric: str) -> Canvas | None:
    """The metric's first figure, for each layer and subject, with its 95 % interval."""
    found = {layer: survey.find(layer, metric) for layer in survey.sheets}
    layers = list(found)
    measured = next((one for per_layer in found.values() for one in per_layer.values()), None)
    if measured is None:
        return None
    key, first = next(iter(measured.figures.items()))
    canvas = Canvas(figsize=(1.1 * len(layers) + 1.5, 0.9 * _PANEL), layout="constrained")
    axes = canvas.subplots()
    width = 0.8 / len(survey.subjects)
    for place, name in enumerate(survey.subjects):
        rows = [
            (x, found[layer][name].figures[key])
            for x, layer in enumerate(layers)
            if name in found[layer] and key in found[layer][name].figures
        ]
        shift = (place - (len(survey.subjects) - 1) / 2) * width
        at = np.array([x for x, _ in rows]) + shift
        values = np.array([figure.value for _, figure in rows])
        reach = [[f.value - f.low for _, f in rows], [f.high - f.value for _, f in rows]]
        axes.bar(at, values, width, color=_colour(name, place), label=name)
        axes.errorbar(at, values, reach, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        refused = np.array(sorted({*range(len(layers))} - {x for x, _ in rows})) + shift
        axes.plot(
            refused, np.zeros(len(refused)), "x", color=_colour(name, place), markersize=5, clip_on=False
        )
    axes.set_xticks(range(len(layers)), layers, fontsize=8)
    axes.set_ylabel(f"{key} ({first.unit})" if first.unit else key, fontsize=8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside upper center", ncols=len(survey.subjects), fontsize=8, frameon=False)
    _caption(canvas, survey, metric, "Whiskers: 95 % intervals; x: refused.")
    return canvas


def _colour(name: str, place: int) -> str:
    return CONTROL if name == SHUFFLED else COLOURS[place % len(COLOURS)]


def _caption(canvas: Canvas, survey: Survey, metric: str, text: str) -> None:
    """State stimulus, n and seed below the figure."""
    stimuli = METRICS.load(metric).stimuli
    sentence = (
        f"{metric.replace('_', ' ')}: {text} Stimuli: {stimuli}, n = {survey.shown[stimuli]:,} images; "
        f"seed {survey.seed}. All on the sheets of {survey.subjects[0]}."
    )
    width = int(canvas.get_figwidth() * 13)
    canvas.supxlabel("\n".join(textwrap.wrap(sentence, width)), fontsize=8, color="#444444")
