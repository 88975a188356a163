"""A sweep as a trade-off: held-out accuracy against topography, or against the time of training."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tdsnn.drawing import drawing, save_figure
from tdsnn.report._placing import place_names
from tdsnn.report._sweep_groups import Group, Mean
from tdsnn.report.sweep import SweepReport

_SIZE = (6.4, 4.8)
"""Inches."""
_SALT = "tdsnn-zoo sweep"
_CHARACTERS_PER_INCH = 18
"""Of the caption."""


def draw(report: SweepReport, files: Iterable[Path]) -> None:
    """Draw a report; equal reports give equal files, without a display.

    Args:
        files: to be written, ``.png`` or ``.svg``.

    Raises:
        TdsnnError: a file cannot be written.
    """
    with drawing(_SALT):
        canvas = _figure(report)
        for path in files:
            save_figure(canvas, path)


def _figure(report: SweepReport) -> Canvas:
    # At 72 dots per inch a pixel is a point.
    canvas = Canvas(figsize=_SIZE, dpi=72, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    backend: Any = FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    against_time = not report.shows_topography
    lines = [_point(axes, report, group, against_time=against_time) for group in report.groups]
    places = {group.name: (_x(group, against_time).value, group.accuracy.value) for group in report.groups}
    if not against_time:
        curve = sorted(places.values())
        axes.plot(*zip(*curve, strict=True), color="#555555", linewidth=0.9, zorder=1)
        lines.append([curve])
    axes.axhline(places[report.baseline][1], color="#555555", linewidth=0.7, linestyle=":", zorder=0)
    axes.set_xlabel(_x_label(report, against_time=against_time), fontsize=9)
    axes.set_ylabel("held-out accuracy (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.1, 0.12)
    caption = textwrap.wrap(_caption(report, against_time=against_time), int(_SIZE[0] * _CHARACTERS_PER_INCH))
    canvas.supxlabel("\n".join(caption), x=0.02, ha="left", fontsize=7.5, color="#333333", parse_math=False)
    # Names are placed among what is drawn, so everything else must stay where it is.
    backend.draw()
    lines.append([[(end, places[report.baseline][1]) for end in axes.get_xlim()]])
    canvas.set_layout_engine("none")
    place_names(
        axes,
        [(_title(group, report), places[group.name]) for group in report.groups],
        points=[*places.values(), *_seeds(report.groups, against_time=against_time)],
        lines=[line for found in lines for line in found],
        font_size=8,
    )
    return canvas


def _point(
    axes: Any, report: SweepReport, group: Group, *, against_time: bool
) -> list[list[tuple[float, float]]]:
    """Draw a group and return its intervals as lines."""
    across, up = _x(group, against_time), group.accuracy
    seeds = _seeds([group], against_time=against_time)
    if len(seeds) > 1:
        axes.plot(
            *zip(*seeds, strict=True),
            "o",
            markersize=2.6,
            color="#999999",
            markeredgewidth=0,
            zorder=4,
        )
    axes.errorbar(
        across.value,
        up.value,
        xerr=_reach(across),
        yerr=_reach(up),
        fmt="s" if group.name == report.baseline else "o",
        markersize=7,
        color="black",
        markerfacecolor="white" if group.topographic is False else "black",
        elinewidth=0.9,
        capsize=2.5,
        zorder=3,
    )
    return [
        *([[(end, up.value) for end in across.interval]] if across.interval else []),
        *([[(across.value, end) for end in up.interval]] if up.interval else []),
    ]


def _x(group: Group, against_time: bool) -> Mean:
    found = group.cpu_minutes if against_time else group.alignment
    assert found is not None
    return found


def _seeds(groups: Sequence[Group], *, against_time: bool) -> list[tuple[float, float]]:
    places = []
    for seed in (seed for group in groups for seed in group.seeds):
        x = seed.cpu_minutes if against_time else seed.alignment
        assert x is not None
        places.append((x, seed.accuracy))
    return places


def _reach(mean: Mean) -> list[list[float]] | None:
    if mean.interval is None:
        return None
    low, high = mean.interval
    return [[mean.value - low], [high - mean.value]]


def _title(group: Group, report: SweepReport) -> str:
    """The group's name, with its number of seeds where that is not the same for all."""
    same = len({len(one.seeds) for one in report.groups}) == 1
    count = len(group.seeds)
    return group.name if same else f"{group.name} ({count} seed{'s' * (count > 1)})"


def _x_label(report: SweepReport, *, against_time: bool) -> str:
    if against_time:
        return "CPU time of training (minutes)"
    count = len(report.alignment_layers)
    over = "in one layer" if count == 1 else f"mean over {count} layers"
    return f"topography P(r, d): correlation of similarity of firing with proximity, {over}"


def _caption(report: SweepReport, *, against_time: bool) -> str:
    seeds = sorted({seed.seed for group in report.groups for seed in group.seeds})
    counts = {len(group.seeds) for group in report.groups}
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    parts = [f"{report.sweep}: n = {report.images} held-out images, {named}."]
    if counts != {1}:
        parts.append("Large markers: means over seeds, with 95 % t intervals over seeds; small dots: seeds.")
    if 1 in counts:
        which = "All groups have" if counts == {1} else "A group with"
        parts.append(f"{which} one seed: 95 % Wilson interval over images, and none along x.")
    parts.append(f"Square and dotted line: {report.baseline}, the baseline.")
    kinds = {group.topographic for group in report.groups}
    if False in kinds and len(kinds) > 1:
        parts.append("Open markers: without spatial loss.")
    if not against_time and len(report.groups) > 1:
        parts.append("Line: groups in the order of P(r, d).")
    return " ".join(parts)
