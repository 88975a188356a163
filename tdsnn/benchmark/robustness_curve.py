"""Accuracy against the radius of attacks: what is left after all of them, and after each."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tdsnn.attacks._norms import NORMS
from tdsnn.drawing import COLOURS, drawing, save_figure
from tdsnn.results import Cell, Figure, Result, accuracy_figure
from tdsnn.table import MARK, WORST_CASE, short

_PANEL = (5.6, 4.4)
"""Inches."""
_CHARACTERS_PER_INCH = 18
"""Of the caption."""
_DASHES = ("--", ":", "-.")


def draw(result: Result, path: Path) -> None:
    """Draw accuracy against radius, one panel for each norm, into a ``.png`` or ``.svg`` file.

    Solid with a 95 % Wilson band: the worst case over all attacks of a radius and smaller ones. Dashed: each
    attack that was made on all images, at two radii or more.

    Args:
        result: with at least one attack that keeps a norm, see :attr:`Result.radii`.

    Raises:
        TdsnnError: the file cannot be written.
    """
    norms = list(dict.fromkeys(one["norm"] for one in result.radii))
    with drawing("tdsnn-zoo bench"):
        size = (_PANEL[0] * len(norms), _PANEL[1])
        canvas = Canvas(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        for axes, norm in zip(canvas.subplots(1, len(norms), squeeze=False)[0], norms, strict=True):
            _panel(axes, result, norm)
        lines = textwrap.wrap(_caption(result), int(size[0] * _CHARACTERS_PER_INCH))
        canvas.supxlabel("\n".join(lines), x=0.02, ha="left", fontsize=7.5, color="#333333", parse_math=False)
        save_figure(canvas, path)


def _panel(axes: Any, result: Result, norm: str) -> None:
    marked = {str(model["name"]) for model in result.models if model["masking_signs"]}
    attacks: dict[str, str] = {}
    for place, one in enumerate(one for one in result.radii if one["norm"] == norm):
        name, colour = str(one["model"]), COLOURS[place % len(COLOURS)]
        radii, figures = _worst_case(one, result.settings["n"])
        label = f"{short(name)}{MARK if name in marked else ''}, {WORST_CASE}"
        values = [one.value for one in figures]
        axes.plot(radii, values, "o-", color=colour, markersize=4, label=label)
        hollow = [place for place, eps in enumerate(radii) if eps in _less_tried(result, name, norm)]
        axes.plot(
            [radii[place] for place in hollow],
            [values[place] for place in hollow],
            "o",
            color=colour,
            markerfacecolor="white",
            markersize=4,
        )
        band = ([one.low for one in figures], [one.high for one in figures])
        axes.fill_between(radii, *band, color=colour, alpha=0.15, linewidth=0)
        for title, cells in _attacks(result, name, norm).items():
            dashes = attacks.setdefault(title, _DASHES[len(attacks) % len(_DASHES)])
            accuracies = [cell.accuracy.value for cell in cells if cell.accuracy]
            axes.plot(
                [0.0, *(cell.eps_255 for cell in cells)],
                [figures[0].value, *accuracies],
                dashes,
                color=colour,
                linewidth=1,
                label=f"{short(name)}, {title}",
            )
    unit = "1/255" if NORMS[norm].continuous else "values"
    axes.set_xlabel(f"{norm} radius ({unit})", fontsize=9)
    axes.set_ylabel("accuracy (%)", fontsize=9)
    axes.set_ylim(0, 100)
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7.5, frameon=False)


def _worst_case(one: Mapping[str, Any], n: int) -> tuple[list[float], list[Figure]]:
    """Radii from 0 on, in units of 1/255, and what is left there."""
    left = [sum(one["clean_correct"]), *(sum(step["of_class"]) for step in one["survivors"])]
    return [0.0, *(step["eps_255"] for step in one["survivors"])], [
        accuracy_figure(right, n) for right in left
    ]


def _cells(result: Result, name: str, norm: str) -> list[Cell]:
    """Of all attacks of a norm on a model."""
    own = [cell for cell in result.cells if (cell.model, cell.norm) == (name, norm)]
    return [cell for cell in own if cell.attack != WORST_CASE and cell.eps_255 > 0 and cell.accuracy]


def _less_tried(result: Result, name: str, norm: str) -> set[float]:
    """Radii at which fewer attacks were made than at others."""
    counts = Counter(cell.eps_255 for cell in _cells(result, name, norm))
    return {eps for eps, count in counts.items() if count < max(counts.values())}


def _attacks(result: Result, name: str, norm: str) -> Mapping[str, Sequence[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in _cells(result, name, norm):
        if cell.entered is None:
            found.setdefault(cell.title, []).append(cell)
    return {
        title: sorted(cells, key=lambda cell: cell.eps_255)
        for title, cells in found.items()
        if len(cells) > 1
    }


def _caption(result: Result) -> str:
    settings = result.settings
    suite = f", suite {settings['suite']['name']}" if settings.get("suite") else ""
    lines = [
        f"{settings['dataset']}, first {settings['n']} test images{suite}. Solid: what is left after all "
        "attacks of a radius and smaller ones, 95 % Wilson interval; dashed: after one attack. Hollow: "
        "fewer attacks were made there than at other radii."
    ]
    if any(model["masking_signs"] for model in result.models):
        lines.append(f"{MARK} gradients may be masked, see the tests in the result.")
    return " ".join(lines)
