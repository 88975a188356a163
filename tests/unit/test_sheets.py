"""Cortical sheets and neighbourhoods."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.topography.clusters import sample_clusters
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import CorticalSheet, build_sheets, neighbourhood_mm


@pytest.mark.parametrize(
    ("size", "height", "published"),
    [(2.4, 56, 0.0475), (36.75, 28, 1.626), (35.0, 14, 3.977), (22.4, 14, 2.545), (70.0, 7, 31.818)],
)
def test_neighbourhood_rule_gives_the_published_widths(size: float, height: int, published: float) -> None:
    assert neighbourhood_mm(size, height=height, first_height=56) == pytest.approx(published, abs=6e-4)


def test_sheets_are_seeded_per_layer() -> None:
    shapes, specs = (
        {"a": (3, 8, 8), "b": (6, 4, 4)},
        [SheetSpec("a", 2.4), SheetSpec("b", 70.0), SheetSpec("c", 1.0)],
    )
    first, again = build_sheets(shapes, specs, seed=1), build_sheets(shapes, specs, seed=1)
    assert torch.equal(first["b"].positions, again["b"].positions)
    assert not torch.equal(first["a"].positions, build_sheets(shapes, specs, seed=2)["a"].positions)
    more = build_sheets({**shapes, "c": (2, 2, 2)}, specs, seed=1)
    assert torch.equal(first["b"].positions, more["b"].positions)


def test_positions_follow_the_image() -> None:
    """Row and column of a unit order its y and x coordinate, up to one neighbourhood and the jitter."""
    sheet = build_sheets({"a": (16, 8, 8)}, [SheetSpec("a", 36.75)], seed=0)["a"]
    x, y = sheet.positions.view(16, 8, 8, 2).mean(0).unbind(-1)
    assert (x.mean(0).diff() > 0).all()
    assert (y.mean(1).diff() > 0).all()
    assert x.mean(1).std() < 1
    assert sheet.positions.min() > -1e-3
    assert sheet.positions.max() < 36.75 + 1e-3


def test_metadata_rebuilds_the_sheet() -> None:
    sheet = build_sheets({"a": (3, 4, 4)}, [SheetSpec("a", 5.0)], seed=7)["a"]
    again = CorticalSheet.from_metadata("a", sheet.metadata(), sheet.positions)
    assert again.metadata() == sheet.metadata()


def test_the_unit_of_distance_scales_proximity_and_is_saved() -> None:
    shapes, specs = {"a": (3, 4, 4), "b": (3, 4, 4)}, [SheetSpec("a", 70.0), SheetSpec("b", 10.0)]
    sheets = build_sheets(shapes, specs, seed=7, units_mm={"a": 7.0})
    assert (sheets["a"].unit_mm, sheets["b"].unit_mm) == (7.0, 1.0)
    places = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert float(sheets["a"].proximity(places * 7)[0, 1]) == pytest.approx(1 / 6)
    assert torch.allclose(sheets["a"].proximity(places * 7), sheets["b"].proximity(places))
    again = CorticalSheet.from_metadata("a", sheets["a"].metadata(), sheets["a"].positions)
    assert again.unit_mm == 7.0
    assert "unit_mm" not in sheets["b"].metadata(), "saved sheets of before keep their bytes"
    with pytest.raises(UsageError, match="above 0 mm"):
        build_sheets(shapes, specs, seed=7, units_mm={"a": 0.0})
    with pytest.raises(UsageError, match="no layer with a sheet called 'c'"):
        build_sheets(shapes, specs, seed=7, units_mm={"c": 1.0})


def test_wrong_positions_are_refused() -> None:
    sheet = build_sheets({"a": (3, 4, 4)}, [SheetSpec("a", 5.0)], seed=7)["a"]
    with pytest.raises(IntegrityError, match=r"\(48, 2\)"):
        CorticalSheet.from_metadata("a", sheet.metadata(), sheet.positions[:-1])
    with pytest.raises(IntegrityError, match="finite"):
        CorticalSheet.from_metadata("a", sheet.metadata(), sheet.positions * float("nan"))


@pytest.mark.parametrize("field", ["size_mm", "neighbourhood_mm", "unit_mm"])
@pytest.mark.parametrize("length", [0.0, -1.0, float("nan"), float("inf")])
def test_lengths_that_cannot_be_are_refused(field: str, length: float) -> None:
    sheet = build_sheets({"a": (2, 3, 3)}, [SheetSpec("a", 2.0, "maps")], seed=0)["a"]
    with pytest.raises(UsageError, match="must be above 0 mm"):
        dataclasses.replace(sheet, **{field: length})


def test_a_layer_without_a_spec_is_refused() -> None:
    with pytest.raises(UsageError, match="No sheet is specified for a"):
        build_sheets({"a": (3, 4, 4)}, [], seed=0)


@settings(max_examples=30, deadline=None)
@given(units=st.integers(5, 60), seed=st.integers(0, 1000))
def test_clusters_are_neighbourhoods(units: int, seed: int) -> None:
    sheet = build_sheets({"a": (8, 8, 8)}, [SheetSpec("a", 36.75)], seed=seed)["a"]
    clusters = sample_clusters(sheet, count=6, units=units, generator=torch.Generator().manual_seed(seed))
    assert clusters.units.shape == (6, units)
    for row, near in zip(clusters.units, clusters.proximity, strict=True):
        assert row.unique().numel() == units
        placed = sheet.positions[row]
        expected = 1 / (1 + (placed[:, None] - placed[None]).norm(dim=-1))
        torch.testing.assert_close(near, expected)
        inside = sheet.positions.ge(placed.amin(0)) & sheet.positions.le(placed.amax(0))
        side = float((placed.amax(0) - placed.amin(0)).max())
        # Either a sample of one w x w square, or every unit of the larger square that was needed.
        assert side <= sheet.neighbourhood_mm + 1e-4 or inside.all(1).sum() <= 2 * units


def test_a_small_sheet_gives_all_its_units() -> None:
    sheet = build_sheets({"a": (2, 4, 4)}, [SheetSpec("a", 5.0)], seed=0)["a"]
    clusters = sample_clusters(sheet, count=1, units=500, generator=torch.Generator())
    assert sorted(clusters.units[0].tolist()) == list(range(32))


def test_every_unit_of_a_neighbourhood_is_as_likely() -> None:
    """The sheet is one neighbourhood, so each of its 128 units must come in a quarter of the draws."""
    sheet = build_sheets({"a": (8, 4, 4)}, [SheetSpec("a", 5.0)], seed=0)["a"]
    sheet = dataclasses.replace(sheet, neighbourhood_mm=100.0)
    clusters = sample_clusters(sheet, count=2000, units=32, generator=torch.Generator().manual_seed(0))
    share = clusters.units.flatten().bincount(minlength=128) / 2000
    assert share.sub(0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize(("count", "units"), [(0, 10), (3, 4)])
def test_empty_clusters_are_refused(count: int, units: int) -> None:
    sheet = build_sheets({"a": (2, 4, 4)}, [SheetSpec("a", 5.0)], seed=0)["a"]
    with pytest.raises(UsageError, match="at least 5 units"):
        sample_clusters(sheet, count=count, units=units, generator=torch.Generator())
