"""The figure of accuracy against the radius."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure as Canvas

from tdsnn.benchmark.robustness_curve import _panel
from tdsnn.results import Cell, Result, accuracy_figure


def _result(norm: str) -> Result:
    cells = tuple(
        Cell(
            key=f"k{eps}",
            model="toy",
            attack="pixle",
            eps_255=eps,
            norm=norm,
            settings={},
            accuracy=accuracy_figure(right, 4),
            clean_correct=4,
            survivors=right,
        )
        for eps, right in ((1.0, 3), (10.0, 1))
    )
    left = [{"eps_255": cell.eps_255, "of_class": [cell.survivors]} for cell in cells]
    radii = ({"model": "toy", "norm": norm, "clean_correct": [4], "survivors": left},)
    models = ({"name": "toy", "masking_signs": ()},)
    return Result(settings={"n": 4}, models=models, cells=cells, comparisons=(), provenance={}, radii=radii)


@pytest.mark.parametrize(("norm", "label"), [("linf", "linf radius (1/255)"), ("l0", "l0 radius (values)")])
def test_radii_are_in_the_unit_of_their_norm(norm: str, label: str) -> None:
    axes = Canvas().subplots()
    _panel(axes, _result(norm), norm)
    assert axes.get_xlabel() == label
    worst = axes.get_lines()[0]
    assert [*worst.get_xdata()] == [0, 1, 10]
    assert [*worst.get_ydata()] == [100, 75, 25]
