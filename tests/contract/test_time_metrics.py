"""What every registered time metric must keep to, whatever it measures."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from networks import network, pictures

from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.results import Key
from tdsnn.temporal._base import TIME_METRICS, Measurement, Subject, TimeMetric
from tdsnn.temporal._spec import time_metrics
from tdsnn.topography.outputs import sheet_shapes
from tdsnn.topography.sheets import build_sheets

QUICK = {"latency": "latency:repeats=5,warmup=1,batch=4", "anytime": "anytime:attack=fgsm,steps=4"}
N = 7


def subject(architecture: str = "sresnet18", *, batch_size: int = 4) -> Subject:
    """A small network on sheets of its own, if it spikes."""
    model = network(architecture, width=4, **({"timesteps": 2} if architecture == "sresnet18" else {}))
    if model.neurons:
        specs = tuple(model.sheet_specs.values())
        shapes = sheet_shapes(model, specs, image_shape=(2, 16, 16))
        model.sheets = build_sheets(shapes, specs, seed=0, first_height=16)
    images = (255 * pictures(N)).to(torch.uint8)
    split = Split(
        images=images.numpy(),
        labels=np.arange(N) % 10,
        classes=tuple(map(str, range(10))),
        digest="0" * 64,
        pinned=False,
        origin="toy",
    )
    return Subject(model=model, split=split, n=N, batch_size=batch_size)


@pytest.fixture(params=TIME_METRICS.names(), scope="module")
def metric(request: pytest.FixtureRequest) -> TimeMetric:
    (found,) = time_metrics([QUICK.get(request.param, request.param)])
    return found


@pytest.fixture(scope="module")
def measured(metric: TimeMetric) -> Measurement:
    return metric.measure(subject())


def test_it_states_what_it_is(metric: TimeMetric) -> None:
    assert isinstance(metric, TIME_METRICS.load(metric.name))
    assert type(metric).__doc__
    assert "Figures" in type(metric).__doc__, "the docstring is the definition of the figures"
    assert metric.read(metric.name, metric.settings) == metric.settings
    assert type(metric)().variant == ""


def test_figures_lie_in_their_intervals(measured: Measurement) -> None:
    assert measured.figures
    for text, figure in measured.figures.items():
        assert str(Key.parse(text)) == text
        assert math.isfinite(figure.low + figure.high), text
        assert figure.low <= figure.value <= figure.high, text
        assert figure.n > 0


def test_samples_are_what_their_figure_is_the_mean_of(measured: Measurement) -> None:
    for text, values in measured.samples.items():
        assert values.shape == (N,)
        assert np.isfinite(values).all()
        assert values.mean() == pytest.approx(measured.figures[text].value, abs=1e-9)


def test_curves_are_lines_in_their_bands(measured: Measurement) -> None:
    for text, curve in measured.curves.items():
        assert str(Key.parse(text)) == text
        assert len(curve.x) == len(curve.y) == len(curve.low) == len(curve.high) > 1
        assert list(curve.x) == sorted(curve.x)
        assert np.isfinite([curve.x, curve.y, curve.low, curve.high]).all()
        assert (np.array(curve.low) <= np.array(curve.y) + 1e-12).all()
        assert (np.array(curve.y) <= np.array(curve.high) + 1e-12).all()


def test_what_is_missing_is_said_in_sentences(measured: Measurement) -> None:
    for what, why in measured.missing.items():
        assert what
        assert why.endswith((".", "?"))
        assert what not in measured.figures


def test_equal_seeds_give_equal_numbers(metric: TimeMetric, measured: Measurement) -> None:
    again = metric.measure(subject())
    assert again.figures.keys() == measured.figures.keys()
    if metric.repeatable:
        assert again.figures == measured.figures
        assert again.curves == measured.curves
    else:
        assert again.figures != measured.figures


def test_the_batch_does_not_matter(metric: TimeMetric, measured: Measurement) -> None:
    other = metric.measure(subject(batch_size=N))
    assert other.figures.keys() == measured.figures.keys()
    if metric.repeatable:
        for text, figure in measured.figures.items():
            assert other.figures[text].value == pytest.approx(figure.value, rel=1e-4, abs=1e-6), text


def test_the_network_and_the_random_states_are_left_as_they_were(metric: TimeMetric) -> None:
    found = subject()
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1]
    weights = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    metric.measure(found)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.model.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in found.model.parameters())
    assert not any(module._forward_hooks for module in found.model.modules())
    assert not found.model.training


def test_what_needs_spikes_refuses_a_network_without(metric: TimeMetric) -> None:
    found = subject("resnet18")
    if not metric.needs_spikes:
        assert metric.measure(found).figures
        return
    assert metric.objection(found.model)
    with pytest.raises(GateError, match="no layer that is known to spike"):
        metric.measure(found)


def test_one_image_is_enough_or_refused(metric: TimeMetric) -> None:
    try:
        found = metric.measure(dataclasses.replace(subject(), n=1))
    except GateError:
        return
    assert all(math.isfinite(figure.value) for figure in found.figures.values())
