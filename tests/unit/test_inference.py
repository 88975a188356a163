"""Streaming against the full run, and nothing left behind by it."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CLOSE, count, network, pictures
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.inference import early_exit, stream
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models import _neurons
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State
from tdsnn.models._registry import MODELS

NEURONS = st.builds(
    LIFConfig,
    tau=st.sampled_from([1.5, 2.0]),
    v_reset=st.sampled_from([None, 0.0, -0.2]),
    decay_input=st.booleans(),
)


@pytest.fixture(scope="module", params=[False, True], ids=["eager", "compiled"])
def spiking(request: pytest.FixtureRequest) -> Model:
    return network("sresnet18", compiled=request.param)


@pytest.mark.parametrize("name", MODELS.names())
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("steps", [None, 6])
def test_stream_is_the_full_run_row_by_row(name: str, compiled: bool, steps: int | None) -> None:
    model, x = network(name, compiled=compiled), pictures(5)
    rows = list(stream(model, x, steps))
    assert len(rows) == (steps or model.timesteps)
    assert not any(row.requires_grad for row in rows)
    torch.testing.assert_close(torch.stack(rows), model.logits_over_time(x, steps).detach(), **CLOSE)


def test_the_imagenet_stem_streams_too() -> None:
    model, x = network("sresnet18", stem="imagenet"), pictures(3)
    torch.testing.assert_close(torch.stack(list(stream(model, x))), model.logits_over_time(x), **CLOSE)


def test_each_step_has_potentials_of_its_own(spiking: Model) -> None:
    """The test above would pass on a network whose answer never changes."""
    first, second, *_ = stream(spiking, pictures(5))
    assert (first - second).abs().max() > 0.1


@settings(max_examples=25, deadline=None)
@given(neuron=NEURONS, channels_last=st.tuples(*[st.booleans()] * 3), seed=st.integers(0, 1000))
@pytest.mark.parametrize("path", ["eager", "compiled", "spikingjelly"])
def test_a_layer_goes_on_where_it_stopped(
    path: str, neuron: LIFConfig, channels_last: tuple[bool, bool, bool], seed: int
) -> None:
    """Steps 1 + 3 + 2 are the same spikes as 6, also when samples leave and the memory order changes."""
    draws = torch.Generator().manual_seed(seed)
    current = 2 * torch.randn(6, 4, 3, 5, 2, generator=draws)
    layer = LIF(neuron)
    layer.compiled = path == "compiled"

    def run(current_TN: Tensor, state: State | None = None, lasting: bool = False) -> Tensor:
        if lasting:
            folded = current_TN.flatten(0, 1).to(memory_format=torch.channels_last)
            current_TN = folded.unflatten(0, current_TN.shape[:2])
        if path != "spikingjelly":
            return layer(current_TN, state, "lif")
        # On CPU too, since the function is SpikingJelly's for every device.
        spikes, last = _neurons._spikingjelly(neuron, current_TN, (state or {}).get("lif"))
        if state is not None:
            state["lif"] = last
        return spikes

    expected = run(current)
    state: State = {}
    one, three = run(current[:1], state, channels_last[0]), run(current[1:4], state, channels_last[1])
    selected = torch.tensor([3, 1])
    state = {"lif": state["lif"][selected]}
    two = run(current[4:, selected], state, channels_last[2])
    assert torch.equal(torch.cat([one, three]), expected[:4])
    assert torch.equal(two, expected[4:, selected])
    assert torch.equal(run(current), expected)


def test_the_first_convolution_runs_once(spiking: Model) -> None:
    calls = count(spiking.get_submodule("conv1"))
    list(stream(spiking, pictures(2)))
    assert calls() == 1


def test_a_path_that_changes_on_the_way_changes_nothing() -> None:
    """A hook turns the fused operator off; potentials lie in another memory order then."""
    model, x = network("sresnet18", compiled=True), pictures(5)
    expected = model.logits_over_time(x)
    rows = stream(model, x)
    first = next(rows)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(torch.stack([first, *rows]), expected.detach(), **CLOSE)


def test_half_precision_streams_with_full_precision_potentials(spiking: Model) -> None:
    x = pictures(5)
    with torch.autocast("cpu", torch.bfloat16):
        expected = spiking.logits_over_time(x).detach()
        rows = torch.stack(list(stream(spiking, x)))
        _, state = spiking.step(spiking.encode(x), {})
    assert rows.dtype == torch.bfloat16
    # bf16 keeps eight bits, and its rounding flips spikes between batch sizes.
    assert (rows - expected).float().norm() / expected.float().norm() < 0.1
    assert {potential.dtype for potential in state.values()} == {torch.float32}
    assert len(state) == len(spiking.neurons) == 17


def test_nothing_is_left_in_the_model(spiking: Model) -> None:
    """Plain calls before, between and after the steps of two streams that run side by side."""
    x, other = pictures(5), pictures(3, seed=2)
    expected, alone = spiking(x), list(stream(spiking, x))
    state = copy.deepcopy(spiking.state_dict())
    one, two = stream(spiking, x), stream(spiking, other)
    for row in alone:
        assert torch.equal(next(one), row)
        next(two)
        assert torch.equal(spiking(x), expected)
    early_exit(spiking, other, margin=0.1)
    assert torch.equal(spiking(x), expected)
    assert all(torch.equal(tensor, state[name]) for name, tensor in spiking.state_dict().items())


def test_another_thread_does_not_see_a_step_that_is_under_way(spiking: Model) -> None:
    x, seen = pictures(5), []
    expected, alone = spiking(x), list(stream(spiking, x))

    def call_from_a_thread(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: seen.append(spiking(x)))
            thread.start()
            thread.join()

    handle = spiking.get_submodule("layer2").register_forward_hook(call_from_a_thread)
    try:
        rows = list(stream(spiking, x))
    finally:
        handle.remove()
    assert len(seen) == len(rows)
    assert all(torch.equal(logits, expected) for logits in seen)
    assert all(torch.equal(row, again) for row, again in zip(alone, rows, strict=True))


def stop_early(rows: Iterator[Tensor]) -> None:
    next(rows)


def fail_on_the_way(rows: Iterator[Tensor]) -> None:
    """The error comes out of a layer in the second step, after others have run."""
    with pytest.raises(RuntimeError, match="on purpose"):
        list(rows)


@pytest.mark.parametrize("end", [stop_early, fail_on_the_way, list])
def test_the_state_ends_with_the_stream(spiking: Model, end: Callable[[Iterator[Tensor]], object]) -> None:
    x, potentials, calls = pictures(2), [], count(spiking.get_submodule("layer3"))
    expected = spiking(x)
    before = calls()

    def look(_module: nn.Module, inputs: tuple[Tensor, State, str], _output: Tensor) -> None:
        _, state, _ = inputs
        potentials.extend(weakref.ref(tensor) for tensor in state.values())
        if end is fail_on_the_way and calls() == before + 2:
            raise RuntimeError("on purpose")

    handle = spiking.get_submodule("layer3").register_forward_hook(look)
    rows = stream(spiking, x)
    try:
        end(rows)
    finally:
        handle.remove()
    if end is fail_on_the_way:
        assert list(rows) == []  # it cannot be resumed in the middle of a step
    assert torch.is_grad_enabled()
    if end is stop_early:
        assert any(reference() is not None for reference in potentials)
        del rows
    gc.collect()
    assert potentials
    assert all(reference() is None for reference in potentials)
    assert torch.equal(spiking(x), expected)


def test_gradients_stay_on_between_the_steps(spiking: Model) -> None:
    for _ in stream(spiking, pictures(2)):
        assert torch.is_grad_enabled()
        assert spiking(pictures(1)).requires_grad


def test_what_cannot_stream_is_refused_in_the_call(spiking: Model) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        stream(spiking, pictures(2), 0)
    with pytest.raises(UsageError, match="takes float images"):
        stream(spiking, torch.rand(2, 3, 16, 16))
    training = network("sresnet18").train()
    for use in (lambda: stream(training, pictures(2)), lambda: early_exit(training, pictures(2), margin=1)):
        with pytest.raises(UsageError, match="training mode") as caught:
            use()
        assert "eval()" in caught.value.hint
