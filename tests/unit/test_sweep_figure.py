"""The figure of a sweep: equal bytes, no display, and names that cover nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.text import Annotation, Text
from sweep_documents import TWIN, group, record, write

from tdsnn.report import _sweep_figure
from tdsnn.report._sweep_documents import find_sweep
from tdsnn.report.sweep import SweepReport, summarise

PLAIN = {0: 9160, 1: 9175, 2: 9150}
CROWDED = [
    group(f"alpha-0.1-beta-0.{n}", {0: 9140 + n, 1: 9150 - n, 2: 9145}, rates=(0.2, 0.24 + n / 1000))
    for n in range(6)
]


def report(path: Path, *groups: Sequence[Mapping[str, Any]]) -> SweepReport:
    return summarise(find_sweep(str(write(path / "results.json", *groups))))


@pytest.fixture
def strengths(tmp_path: Path) -> SweepReport:
    return report(
        tmp_path,
        group("plain", PLAIN, entry=TWIN, rates=(0.0, 0.1)),
        group("strong", {0: 8870, 1: 8900, 2: 8885}, rates=(0.4, 0.6)),
        *CROWDED,
    )


def test_two_drawings_are_equal_to_the_byte(strengths: SweepReport, tmp_path: Path) -> None:
    for name in ("one", "two"):
        files = [tmp_path / f"{name}.{kind}" for kind in ("svg", "png")]
        # Not even a user's own style changes them.
        with mpl.rc_context({"axes.grid": name == "two"}):
            _sweep_figure.draw(strengths, files)
    for kind in ("svg", "png"):
        content = (tmp_path / f"one.{kind}").read_bytes()
        assert content == (tmp_path / f"two.{kind}").read_bytes()
        assert content.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()


def test_another_process_without_a_display_draws_the_same(strengths: SweepReport, tmp_path: Path) -> None:
    _sweep_figure.draw(strengths, [tmp_path / "here.svg"])
    environment = {key: value for key, value in os.environ.items() if not key.endswith("DISPLAY")}
    # A backend with windows would fail there.
    environment |= {"MPLBACKEND": "tkagg", "PYTHONHASHSEED": "7"}
    command = ["report", "sweep", str(tmp_path / "results.json"), "--plot", str(tmp_path / "there.svg")]
    subprocess.run(
        [sys.executable, "-m", "tdsnn", *command], env=environment, check=True, capture_output=True
    )
    assert (tmp_path / "here.svg").read_bytes() == (tmp_path / "there.svg").read_bytes()


def test_names_cover_neither_each_other_nor_the_edge(strengths: SweepReport) -> None:
    canvas = _sweep_figure._figure(strengths)
    (axes,) = canvas.axes
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert {text.get_text() for text in names} == {one.name for one in strengths.groups}
    # Without the thin lines to the points, which are part of an annotation's own extent.
    canvas.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in names]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    window = axes.get_window_extent()
    assert all(window.x0 <= box.x0 and box.x1 <= window.x1 for box in boxes)


def test_the_line_goes_through_the_groups_in_the_order_of_topography(strengths: SweepReport) -> None:
    (axes,) = _sweep_figure._figure(strengths).axes
    means = sorted(
        (one.alignment.value, one.accuracy.value) for one in strengths.groups if one.alignment is not None
    )
    assert any([*zip(*line.get_data(), strict=True)] == means for line in axes.lines)
    assert axes.get_xlabel().startswith("topography P(r, d)")
    assert axes.get_xlabel().endswith("mean over 2 layers")
    assert axes.get_ylabel() == "held-out accuracy (%)"


def test_recipes_are_drawn_against_time(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        group("short", PLAIN, entry=TWIN, minutes=10),
        [record("long", 9300, entry=TWIN, minutes=80)],
    )
    canvas = _sweep_figure._figure(found)
    (axes,) = canvas.axes
    assert axes.get_xlabel() == "CPU time of training (minutes)"
    assert axes.get_xlim()[1] > 80
    assert {text.get_text() for text in axes.texts} == {"short (3 seeds)", "long (1 seed)"}


def test_the_caption_states_images_seeds_and_intervals(tmp_path: Path) -> None:
    found = report(tmp_path, group("plain", PLAIN, entry=TWIN), [record("weak", 9170, seed=2)])
    caption = " ".join(_sweep_figure._figure(found).get_supxlabel().split())
    for part in (
        "strengths: n = 10,000 held-out images, seeds 0, 1, 2.",
        "95 % t intervals over seeds",
        "A group with one seed: 95 % Wilson interval over images",
        "plain, the baseline",
    ):
        assert part in caption
