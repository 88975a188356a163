"""Correlation against distance and pinwheels on sheets whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import maps
import numpy as np
import pytest

from tdsnn.errors import GateError
from tdsnn.metrics._windows import members, tiles
from tdsnn.metrics.correlation_distance import CorrelationDistance
from tdsnn.metrics.pinwheels import Pinwheels, count_pinwheels, spread_deg, winding_numbers

HYPERCOLUMN_MM = maps.WIDTH_MM * 3.5 / 1.626


@pytest.fixture(scope="module")
def sheet() -> maps.CorticalSheet:
    return maps.sheet()


def test_tiles_cut_the_sheet() -> None:
    x, y = np.meshgrid(np.arange(10.0), np.arange(10.0))
    tile, count, side = tiles(np.stack((x.ravel(), y.ravel()), 1), 3.0)
    assert (count, side) == (9, 3.0)
    expected = [
        min(int(row) // 3, 2) * 3 + min(int(column) // 3, 2) for row in range(10) for column in range(10)
    ]
    assert tile.tolist() == expected
    assert [len(part) for part in members(tile, least=10)] == [12, 12, 12, 12, 16]
    assert tiles(np.stack((x.ravel(), y.ravel()), 1), 100.0, least=3)[1] == 9


def correlated(on: maps.CorticalSheet, *, decay_mm: float) -> maps.Responses:
    """Responses whose correlation between units is exp(-distance / decay)."""
    positions = on.positions.double().numpy()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    stimuli = maps.gratings()
    generator = np.random.default_rng(0)
    root = np.linalg.cholesky(np.exp(-distances / decay_mm) + 1e-9 * np.eye(len(positions)))
    return maps.responses(
        generator.standard_normal((len(stimuli.images), len(positions))) @ root.T, stimuli, on
    )


def test_correlation_follows_the_decay_that_was_put_in() -> None:
    small = maps.sheet(shape=(1500, 1, 1))
    found = CorrelationDistance().measure(correlated(small, decay_mm=1.0), small)
    curve, figures = found.curves["correlation"], found.figures
    assert len(curve.x) == 15
    assert curve.x[-1] == pytest.approx(1.845 * 14.5 / 15, rel=0.03)
    np.testing.assert_allclose(curve.y, np.exp(-np.array(curve.x)), atol=0.05)
    assert figures["near"].value == curve.y[0]
    assert figures["decay"].value == curve.y[0] - curve.y[-1]
    assert figures["decay"].low > 0.6
    assert abs(figures["shuffled"].value) < 0.1
    assert abs(figures["shuffled_near"].value) < 0.1
    assert 140 < figures["near"].n <= 169


def test_the_interval_is_over_windows_and_not_over_pairs(sheet: maps.CorticalSheet) -> None:
    """Pairs correlate on the left half only: windows scatter by 0.5, however many pairs they hold."""
    x, _ = maps.places(sheet)
    stimuli = maps.gratings()
    noise = np.random.default_rng(0).standard_normal((len(stimuli.images), len(x)))
    near = (
        CorrelationDistance()
        .measure(
            maps.responses(
                np.where(x < maps.SIZE_MM / 2, noise[:, :1] + 0.01 * noise, noise), stimuli, sheet
            ),
            sheet,
        )
        .figures["near"]
    )
    assert near.value == pytest.approx(0.5, abs=0.06)
    assert near.high - near.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(near.n), rel=0.15)


def test_silent_units_do_not_change_correlations(sheet: maps.CorticalSheet) -> None:
    given = maps.ordered_gratings(sheet)
    rates = given.rates.clone()
    rates[:, ::2] = 0.25
    found = CorrelationDistance().measure(dataclasses.replace(given, rates=rates), sheet).figures
    assert all(math.isfinite(figure.value) for figure in found.values())
    whole = CorrelationDistance().measure(given, sheet).figures
    assert found["decay"].value == pytest.approx(whole["decay"].value, abs=0.05)


def test_too_few_responding_units_in_all_windows() -> None:
    small = maps.sheet(shape=(200, 1, 1))
    given = maps.ordered_gratings(small)
    with pytest.raises(GateError, match="hold 5 responding units"):
        CorrelationDistance().measure(given, small)
    with pytest.raises(GateError, match="prefer an orientation"):
        Pinwheels().measure(given, small)


def ideal(turn: float) -> np.ndarray:
    """Field of a lone pinwheel at the middle of a 6 x 6 grid."""
    y, x = np.mgrid[-2.5:3, -2.5:3]
    return np.exp(1j * turn * np.arctan2(y, x))


def test_winding_of_an_ideal_pinwheel() -> None:
    turns = winding_numbers(ideal(1.0))
    assert turns.shape == (4, 4)
    np.testing.assert_allclose(turns[1:3, 1:3], 0.5)
    turns[1:3, 1:3] = 0
    np.testing.assert_allclose(turns, 0, atol=1e-12)
    np.testing.assert_allclose(winding_numbers(ideal(-1.0))[1:3, 1:3], -0.5)


def test_counting_needs_two_orderly_pixels() -> None:
    field = 0.9 * ideal(1.0)
    assert count_pinwheels(field, 30.0) == (1, 0)
    assert count_pinwheels(field.conj(), 30.0) == (0, 1)
    assert count_pinwheels(field, 5.0) == (0, 0), "windows are more spread than that"
    assert count_pinwheels(field[:, :-1], 30.0) == (1, 0)
    assert count_pinwheels(field[:-2, :-2], 30.0) == (0, 0), "a single loop goes around it"
    field = ideal(1.0)
    field[2, 2] = np.nan
    assert count_pinwheels(field, 30.0) == (0, 0), "loops through an empty window do not count"


def test_spread_is_the_circular_standard_deviation_of_period_180() -> None:
    from scipy.stats import circstd

    sample = np.random.default_rng(0).normal(20, 15, 1000)
    mean = np.exp(2j * np.deg2rad(sample)).mean()
    assert spread_deg(mean) == pytest.approx(circstd(sample, high=180), rel=1e-9)


@pytest.mark.parametrize("spacing_mm", [3.0, 4.0])
def test_every_pinwheel_of_a_lattice_is_found(sheet: maps.CorticalSheet, spacing_mm: float) -> None:
    x, y = maps.places(sheet)
    given = maps.to_gratings(sheet, maps.lattice_deg(x, y, spacing_mm=spacing_mm, offset_mm=0.0))
    figures = Pinwheels().measure(given, sheet).figures
    inside = round(maps.SIZE_MM / spacing_mm) - 1
    positive, negative = figures["positive"].value, figures["negative"].value
    assert positive + negative == inside**2
    assert abs(positive - negative) == 1
    # The searched area is smaller than the sheet by one window and two pixels.
    assert figures["density"].value == pytest.approx(
        inside**2 / ((maps.SIZE_MM - 1.845 - 0.55) / HYPERCOLUMN_MM) ** 2, rel=0.06
    )
    assert figures["density"].low < figures["density"].value < figures["density"].high
    assert figures["shuffled"].value < 0.1 * figures["density"].value


def test_mirrored_maps_have_pinwheels_of_the_other_sign(sheet: maps.CorticalSheet) -> None:
    x, y = maps.places(sheet)
    lattice = maps.lattice_deg(x, y, spacing_mm=3.0, offset_mm=0.0)
    one = maps.values(Pinwheels(), maps.to_gratings(sheet, lattice), sheet)
    other = maps.values(Pinwheels(), maps.to_gratings(sheet, -lattice % 180), sheet)
    assert (one["positive"], one["negative"]) == (other["negative"], other["positive"])


def test_a_planar_gradient_has_no_pinwheels(sheet: maps.CorticalSheet) -> None:
    x, _ = maps.places(sheet)
    figures = Pinwheels().measure(maps.to_gratings(sheet, x / 12 * 180 % 180), sheet).figures
    assert figures["density"].value == figures["density"].low == 0
    assert figures["density"].high > 0


def test_random_preferences_have_hardly_any_pinwheels(sheet: maps.CorticalSheet) -> None:
    preferred = np.random.default_rng(3).uniform(0, 180, len(sheet.positions))
    found = maps.values(Pinwheels(), maps.to_gratings(sheet, preferred), sheet)
    assert found["density"] < 0.15


def test_a_sheet_of_one_hypercolumn_is_refused(sheet: maps.CorticalSheet) -> None:
    wide = dataclasses.replace(sheet, neighbourhood_mm=12.0)
    with pytest.raises(GateError, match="square hypercolumns"):
        Pinwheels().measure(maps.ordered_gratings(wide), wide)
