"""Maps of tuning on sheets whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import maps
import numpy as np
import pytest
import torch

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._smoothness import difference_curves, reach_mm, smoothness
from tdsnn.metrics._tuning import best_level, orientation
from tdsnn.metrics.colour import Colour
from tdsnn.metrics.orientation import Orientation
from tdsnn.metrics.spatial_frequency import SpatialFrequency

REACH = 3.30 / 1.626


def random_deg(units: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 180, units)


@pytest.fixture(scope="module")
def sheet() -> maps.CorticalSheet:
    return maps.sheet()


def literal_curve(values, positions, *, reach, period):
    """Mean difference in each of nine bins, pair by pair."""
    sums, pairs = [0.0] * 9, [0] * 9
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            distance = math.dist(positions[i], positions[j])
            if distance <= reach:
                apart = abs(values[i] - values[j])
                bin_ = min(int(distance / reach * 9), 8)
                sums[bin_] += min(apart, period - apart) if period else apart
                pairs[bin_] += 1
    return [total / count if count else math.nan for total, count in zip(sums, pairs, strict=True)]


def literal_smoothness(curve):
    """(max - first) / max after cutting at the first NaN."""
    cut = []
    for value in curve:
        if math.isnan(value):
            break
        cut.append(value)
    return (max(cut) - cut[0]) / max(cut)


@pytest.mark.parametrize("period", [180.0, None])
@pytest.mark.parametrize("units", [12, 80])
def test_curve_and_smoothness_equal_the_literal_ones(period: float | None, units: int) -> None:
    generator = np.random.default_rng(units)
    values, positions = generator.uniform(0, 180, units), generator.uniform(0, 10, (units, 2))
    curves, pairs = difference_curves(values[None], positions, reach=4.0, period=period)
    expected = literal_curve(values, positions, reach=4.0, period=period)
    np.testing.assert_allclose(curves[0], expected, rtol=1e-12)
    assert pairs.sum() <= units * (units - 1) // 2
    if not math.isnan(expected[0]):
        assert smoothness(curves)[0] == pytest.approx(literal_smoothness(expected), rel=1e-12)


def test_a_pair_at_the_full_reach_counts() -> None:
    curves, pairs = difference_curves(np.array([[0.0, 5.0]]), np.array([[0.0, 0.0], [3.0, 0.0]]), reach=3.0)
    assert pairs.tolist() == [0] * 8 + [1]
    assert curves[0, 8] == 5


def test_smoothness_by_hand() -> None:
    nan = math.nan
    curves = np.array([[1.0, 2, 4], [3, 2, 1], [1, 2, nan], [1, nan, 4]])
    assert smoothness(curves).tolist() == [0.75, 0.0, 0.5, 0.0]
    with pytest.raises(GateError, match="do not differ"):
        smoothness(np.zeros((1, 3)))


def test_reach_is_the_published_one_on_the_published_sheet() -> None:
    sheet = dataclasses.replace(maps.sheet(), size_mm=36.75, neighbourhood_mm=1.626)
    assert reach_mm(sheet, REACH) == pytest.approx(3.30, abs=1e-3)
    assert reach_mm(dataclasses.replace(sheet, neighbourhood_mm=30.0), REACH) == 36.75


def test_preferred_orientation_is_the_one_that_was_put_in(sheet: maps.CorticalSheet) -> None:
    expected = random_deg(len(sheet.positions))
    found = orientation(maps.to_gratings(sheet, expected, noise=0.0))
    apart = np.abs(found.values - expected)
    assert np.minimum(apart, 180 - apart).max() < 1e-3
    # 1 - CV of 0.5 + 0.4 cos is half of 0.4 / 0.5.
    np.testing.assert_allclose(found.strength, 0.4, atol=1e-5)


def test_orientation_is_averaged_over_all_other_factors(sheet: maps.CorticalSheet) -> None:
    """What frequency, phase or colour a unit likes must not change its orientation."""
    expected = random_deg(len(sheet.positions))
    units = np.arange(len(expected))
    given = maps.to_gratings(sheet, expected, noise=0.0, frequency=units % 4.0, colour=units % 2.0)
    apart = np.abs(orientation(given).values - expected)
    assert np.minimum(apart, 180 - apart).max() < 1e-3


def test_how_often_a_level_is_shown_does_not_matter(sheet: maps.CorticalSheet) -> None:
    given = maps.ordered_gratings(sheet)
    often = torch.arange(len(given.rates)).repeat(2)[: len(given.rates) * 3 // 2]
    factors = {name: level[often] for name, level in given.stimuli.factors.items()}
    stimuli = dataclasses.replace(given.stimuli, images=given.stimuli.images[often], factors=factors)
    unequal = dataclasses.replace(given, rates=given.rates[often], stimuli=stimuli)
    for find in (orientation, lambda r: best_level(r, "cycles_per_image", word="frequency")):
        assert np.array_equal(find(unequal).values.round(3), find(given).values.round(3))


def test_orientations_that_would_bias_the_sum_are_refused(sheet: maps.CorticalSheet) -> None:
    given = maps.to_gratings(sheet, random_deg(len(sheet.positions)))
    levels = dict(given.stimuli.levels) | {"orientation_deg": tuple(range(8))}
    stimuli = dataclasses.replace(given.stimuli, levels=levels)
    with pytest.raises(UsageError, match="evenly spaced"):
        orientation(dataclasses.replace(given, stimuli=stimuli))


def test_a_tie_is_no_preference(sheet: maps.CorticalSheet) -> None:
    given = maps.ordered_gratings(sheet)
    rates = given.rates.clone()
    first, second = (given.stimuli.factors["cycles_per_image"] == k for k in (0, 1))
    rates[:, :10] = 0.0
    rates[first | second, :10] = 0.5
    found = best_level(dataclasses.replace(given, rates=rates), "cycles_per_image", word="frequency")
    assert np.isnan(found.values[:10]).all()
    assert np.isfinite(found.values[10:]).all()
    assert found.strength[:10].sum() == 0


def test_only_the_most_tuned_quarter_counts(sheet: maps.CorticalSheet) -> None:
    found = orientation(maps.to_gratings(sheet, random_deg(len(sheet.positions))))
    assert len(found.selective) == pytest.approx(len(found.values) / 4, abs=1)
    rest = np.setdiff1d(found.tuned, found.selective)
    assert found.tuning_range[found.selective].min() >= found.tuning_range[rest].max()
    tied = dataclasses.replace(found, tuning_range=np.ones_like(found.tuning_range))
    assert len(tied.selective) == len(tied.tuned)


def test_a_planar_gradient_is_smooth(sheet: maps.CorticalSheet) -> None:
    """Orientation turns once in 12 mm: 15 degrees a mm, so the curve is known."""
    x, _ = maps.places(sheet)
    found = Orientation().measure(maps.to_gratings(sheet, x / 12 * 180 % 180, noise=0.0), sheet)
    curve = found.curves["difference"]
    assert curve.x[-1] == pytest.approx(2 * REACH * 8.5 / 9, rel=1e-3)
    # The mean |cos| of a random direction is 2 / pi; within a bin distance grows as its square.
    reached = [(2 / 9 * REACH) * (k**3 - (k - 1) ** 3) / (k**2 - (k - 1) ** 2) * 2 / 3 for k in range(1, 10)]
    np.testing.assert_allclose(curve.y, np.array(reached) * 15 * 2 / math.pi, rtol=0.05)
    assert found.figures["smoothness"].value == pytest.approx(1 - reached[0] / reached[-1], abs=0.01)


def test_random_preferences_are_not_smooth(sheet: maps.CorticalSheet) -> None:
    given = maps.to_gratings(sheet, random_deg(len(sheet.positions)))
    found = Orientation().measure(given, sheet).figures
    assert found["smoothness"].value < 0.1
    assert found["smoothness"].value == pytest.approx(found["shuffled"].value, abs=0.05)


@pytest.mark.parametrize(("metric", "factor"), [(SpatialFrequency(), "frequency"), (Colour(), "colour")])
def test_levels_in_stripes(sheet: maps.CorticalSheet, metric, factor: str) -> None:
    x, _ = maps.places(sheet)
    stripes = {factor: np.floor(x / 6) % 2}
    given = maps.to_gratings(sheet, random_deg(len(sheet.positions)), **stripes)
    found = metric.measure(given, sheet)
    assert np.array_equal(found.maps["preference"].values.numpy(), stripes[factor])
    figures = found.figures
    assert figures["smoothness"].low > 0.6
    assert figures["shuffled"].value < 0.15


def test_two_levels_differ_by_their_shares(sheet: maps.CorticalSheet) -> None:
    """A share p of one colour makes random units differ with probability 2 p (1 - p)."""
    generator = np.random.default_rng(5)
    colour = (generator.random(len(sheet.positions)) < 0.3).astype(float)
    given = maps.to_gratings(sheet, random_deg(len(sheet.positions)), colour=colour)
    y = Colour().measure(given, sheet).curves["difference"].y
    assert np.mean(y[1:]) == pytest.approx(2 * 0.3 * 0.7, abs=0.03)


def test_one_colour_is_refused(sheet: maps.CorticalSheet) -> None:
    given = maps.to_gratings(sheet, random_deg(len(sheet.positions)), stimuli=maps.gratings(colours=1))
    with pytest.raises(GateError, match="one colour only"):
        Colour().measure(given, sheet)


@pytest.mark.parametrize("others", [0, 40])
def test_a_nearly_constant_map_is_refused(sheet: maps.CorticalSheet, others: int) -> None:
    """1 % of other preferences must not make a map; the published smoothness would be close to 1."""
    preferred = np.full(len(sheet.positions), 30.0)
    preferred[:others] = 120.0
    with pytest.raises(GateError, match="same preferred orientation"):
        Orientation().measure(maps.to_gratings(sheet, preferred), sheet)


def test_units_far_from_each_other_are_refused() -> None:
    small = dataclasses.replace(maps.sheet(shape=(100, 1, 1)), neighbourhood_mm=0.5)
    given = maps.to_gratings(small, random_deg(100))
    with pytest.raises(GateError, match="pairs of 12 units"):
        Orientation().measure(given, small)


def test_a_missing_factor_is_named(sheet: maps.CorticalSheet) -> None:
    given = maps.ordered_gratings(sheet)
    factors = {name: level for name, level in given.stimuli.factors.items() if name != "colour"}
    stimuli = dataclasses.replace(given.stimuli, factors=factors)
    with pytest.raises(UsageError, match="no factor 'colour'"):
        Colour().measure(dataclasses.replace(given, stimuli=stimuli), sheet)
    factors = dict(given.stimuli.factors) | {"colour": torch.zeros(len(given.rates), dtype=torch.int64)}
    stimuli = dataclasses.replace(given.stimuli, factors=factors)
    with pytest.raises(UsageError, match="No image of 'gratings' shows colour red and cyan"):
        Colour().measure(dataclasses.replace(given, stimuli=stimuli), sheet)
