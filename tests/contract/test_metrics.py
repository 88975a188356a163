"""What every registered metric must keep to, whatever it measures."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import maps
import numpy as np
import pytest
import torch

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._base import METRICS, Measurement, Metric
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet


@pytest.fixture(params=METRICS.names(), scope="module")
def metric(request: pytest.FixtureRequest) -> Metric:
    return METRICS.load(request.param)()


@pytest.fixture(scope="module")
def sheet() -> CorticalSheet:
    return maps.sheet()


@pytest.fixture(scope="module")
def given(metric: Metric, sheet: CorticalSheet) -> Responses:
    return maps.ORDERED[metric.stimuli](sheet)


@pytest.fixture(scope="module")
def measured(metric: Metric, given: Responses, sheet: CorticalSheet) -> Measurement:
    return metric.measure(given, sheet)


def test_it_states_what_it_is(metric: Metric) -> None:
    assert isinstance(metric, METRICS.load(metric.name))
    assert metric.stimuli in maps.ORDERED
    assert metric.direction in {"higher", "lower", "none"}
    assert metric.version >= 1
    assert type(metric).__doc__
    assert "Figures" in type(metric).__doc__, "the docstring is the definition of the figures"


def test_figures_lie_in_their_intervals(measured: Measurement) -> None:
    assert measured.figures
    for name, figure in measured.figures.items():
        assert math.isfinite(figure.low + figure.high), name
        assert figure.low <= figure.value <= figure.high, name
        assert figure.n > 0


def test_there_is_a_control_on_shuffled_positions(metric: Metric, measured: Measurement) -> None:
    if metric.direction != "none":
        assert "shuffled" in measured.figures


def test_curves_are_lines_in_their_bands(measured: Measurement) -> None:
    for curve in measured.curves.values():
        assert len(curve.x) == len(curve.y) == len(curve.low) == len(curve.high) > 1
        assert list(curve.x) == sorted(curve.x)
        assert np.isfinite([curve.x, curve.y, curve.low, curve.high]).all()
        assert (np.array(curve.low) <= np.array(curve.y) + 1e-12).all()
        assert (np.array(curve.y) <= np.array(curve.high) + 1e-12).all()
        assert "(mm)" in curve.x_label


def test_maps_can_be_drawn(measured: Measurement, sheet: CorticalSheet) -> None:
    for drawn in measured.maps.values():
        assert drawn.values.shape == drawn.strength.shape == (len(sheet.positions),)
        there = drawn.values[drawn.values.isfinite()]
        assert len(there)
        assert ((drawn.strength >= 0) & (drawn.strength <= 1)).all()
        if drawn.kind == "cyclic":
            assert ((there >= 0) & (there < 180)).all()
        if drawn.kind == "levels":
            assert set(there.tolist()) <= set(range(len(drawn.levels)))


def test_equal_seeds_give_equal_numbers(
    metric: Metric, given: Responses, sheet: CorticalSheet, measured: Measurement
) -> None:
    again = metric.measure(given, sheet, seed=0)
    assert again.figures == measured.figures
    assert again.curves == measured.curves
    if metric.direction != "none":
        other = metric.measure(given, sheet, seed=1)
        assert other.figures != measured.figures, "the seed is used"


def test_the_global_random_states_are_not_touched(
    metric: Metric, given: Responses, sheet: CorticalSheet
) -> None:
    rates = given.rates.clone()
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1]
    metric.measure(given, sheet)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])
    assert torch.equal(rates, given.rates), "the responses are left as they were"


def test_shuffled_positions_are_less_topographic(
    metric: Metric, given: Responses, sheet: CorticalSheet, measured: Measurement
) -> None:
    name, first = next(iter(measured.figures.items()))
    chance = metric.measure(given, maps.shuffled(sheet)).figures[name]
    if metric.direction == "higher":
        assert chance.high < first.low
    elif metric.direction == "lower":
        assert chance.low > first.high


def test_what_shuffled_says_is_what_shuffling_gives(
    metric: Metric, given: Responses, sheet: CorticalSheet, measured: Measurement
) -> None:
    name = next(iter(measured.figures))
    if "shuffled" in measured.figures:
        control = measured.figures["shuffled"]
        chance = metric.measure(given, maps.shuffled(sheet)).figures[name]
        assert control.low <= chance.high
        assert chance.low <= control.high


@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_a_flat_map_is_refused(metric: Metric, given: Responses, sheet: CorticalSheet, spread: float) -> None:
    """All units respond as one, exactly or nearly; the published smoothness of that is 1."""
    one = given.rates[:, :1].expand_as(given.rates)
    noise = torch.rand(given.rates.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(GateError):
        metric.measure(dataclasses.replace(given, rates=one + spread * noise), sheet)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_layer_without_any_response_is_refused(
    metric: Metric, given: Responses, sheet: CorticalSheet, rate: float
) -> None:
    with pytest.raises(GateError, match="at least 20"):
        metric.measure(dataclasses.replace(given, rates=torch.full_like(given.rates, rate)), sheet)


def test_a_nearly_silent_layer_is_measured_or_refused(
    metric: Metric, given: Responses, sheet: CorticalSheet
) -> None:
    """Thirty of 4,032 units: no error but a refusal, no number that is not finite."""
    rates = torch.zeros_like(given.rates)
    rates[:, ::135] = given.rates[:, ::135]
    with contextlib.suppress(GateError):
        found = metric.measure(dataclasses.replace(given, rates=rates), sheet)
        assert all(math.isfinite(figure.value) for figure in found.figures.values())


def test_spikes_of_four_steps_are_enough(
    metric: Metric, given: Responses, sheet: CorticalSheet, measured: Measurement
) -> None:
    """Rates that are counts of spikes in four steps tie often; the map is still there."""
    generator = torch.Generator().manual_seed(0)
    spikes = torch.rand(4, *given.rates.shape, generator=generator) < given.rates
    found = metric.measure(dataclasses.replace(given, rates=spikes.float().mean(0)), sheet)
    if metric.direction == "higher":
        assert next(iter(found.figures.values())).low > found.figures["shuffled"].high


def test_responses_that_are_not_finite_are_refused(
    metric: Metric, given: Responses, sheet: CorticalSheet
) -> None:
    rates = given.rates.clone()
    rates[0, 0] = math.nan
    with pytest.raises(GateError, match="not finite"):
        metric.measure(dataclasses.replace(given, rates=rates), sheet)


def test_other_stimuli_and_sheets_are_refused(metric: Metric, given: Responses, sheet: CorticalSheet) -> None:
    other = dataclasses.replace(given.stimuli, name="noise")
    with pytest.raises(UsageError, match="needs responses to"):
        metric.measure(dataclasses.replace(given, stimuli=other), sheet)
    with pytest.raises(UsageError, match="The sheet of"):
        metric.measure(given, maps.sheet(shape=(4, 4, 4)))
