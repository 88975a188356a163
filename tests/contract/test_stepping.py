"""Every model goes from one explicit state to the next, and its fast path over all steps agrees with that."""

from __future__ import annotations

import pytest
import torch
from networks import CLOSE, network, pictures, taken
from torch import Tensor

from tdsnn.inference import early_exit, stream
from tdsnn.models._base import Model
from tdsnn.models._neurons import State
from tdsnn.models._registry import MODELS
from tdsnn.topography.outputs import capture_outputs

TIMES = (1, 2, 3, 4)


@pytest.fixture(params=MODELS.names(), scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["eager", "compiled"], scope="module")
def model(request: pytest.FixtureRequest, name: str) -> Model:
    return network(name, compiled=request.param, **taken(name, {"width": 4}))


def steps_of(model: Model, x: Tensor, timesteps: int) -> tuple[Tensor, State]:
    """Logits (T, N, K) step by step, and the last state."""
    encoded = model.encode(x)
    state, rows = model.init_state(encoded), []
    for _ in range(timesteps):
        logits, state = model.step(encoded, state)
        rows.append(logits)
    return torch.stack(rows), state


@pytest.mark.parametrize("timesteps", TIMES)
def test_all_steps_at_once_are_the_single_steps(model: Model, timesteps: int) -> None:
    """Logits and the spikes of every sheet."""
    x, layers = pictures(3), [*model.sheet_layers]
    with torch.no_grad():
        with capture_outputs(model, layers) as outputs:
            whole = model.logits_over_time(x, timesteps)
        spikes = dict(outputs)
        encoded = model.encode(x)
        state = model.init_state(encoded)
        for t in range(timesteps):
            with capture_outputs(model, layers) as outputs:
                logits, state = model.step(encoded, state)
            torch.testing.assert_close(logits, whole[t], **CLOSE)
            for layer in layers:
                one, all_steps = (model.sheet_specs[layer].as_maps(o[layer]) for o in (outputs, spikes))
                torch.testing.assert_close(one, all_steps[t : t + 1], **CLOSE)


def test_logits_change_from_step_to_step(model: Model) -> None:
    """The test above would pass on a network without state."""
    if model.timesteps > 1:
        with torch.no_grad():
            rows = model.logits_over_time(pictures(3))
        assert (rows[1:] - rows[:-1]).abs().amax((1, 2)).min() > 0.01


def test_a_sequence_can_be_cut_anywhere(model: Model) -> None:
    x = pictures(3)
    with torch.no_grad():
        encoded = model.encode(x)
        whole = model.logits_over_time(x, 4)
        first, state = model.unroll(encoded, 3, model.init_state(encoded))
        second, _ = model.unroll(encoded, 1, state)
    torch.testing.assert_close(torch.cat([first, second]), whole, **CLOSE)


def test_a_step_leaves_the_state_that_it_was_given(model: Model) -> None:
    x = pictures(3)
    with torch.no_grad():
        _, state = steps_of(model, x, 2)
        before = {name: tensor.clone() for name, tensor in state.items()}
        once, after = model.step(model.encode(x), state)
        again, _ = model.step(model.encode(x), state)
    assert torch.equal(once, again)
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)
    if model.timesteps > 1:
        assert any(not torch.equal(after[name], before[name]) for name in before)


def test_state_has_the_samples_first(model: Model) -> None:
    """Samples can be selected: those that are left go on as if they were alone."""
    x, selected = pictures(4), torch.tensor([2, 0])
    with torch.no_grad():
        _, state = steps_of(model, x, 2)
        chosen = {name: tensor[selected] for name, tensor in state.items()}
        logits, _ = model.step(model.encode(x[selected]), chosen)
        torch.testing.assert_close(logits, model.logits_over_time(x, 3)[2][selected], **CLOSE)


def test_streams_are_rows_of_the_full_run(model: Model) -> None:
    x = pictures(4)
    with torch.no_grad():
        whole = model.logits_over_time(x)
    torch.testing.assert_close(torch.stack(list(stream(model, x))), whole, **CLOSE)
    left = early_exit(model, x, margin=0.05)
    for index, steps in enumerate(left.steps.tolist()):
        torch.testing.assert_close(left.logits[index], whole[:steps, index].mean(0), **CLOSE)


def test_gradients_through_the_steps_are_those_of_the_full_run(model: Model) -> None:
    x = pictures(3).requires_grad_()
    wanted = [x, *model.parameters()]
    weight = torch.randn(3, 3, model.num_classes, generator=torch.Generator().manual_seed(0))
    one = torch.autograd.grad((model.logits_over_time(x, 3) * weight).sum(), wanted)
    two = torch.autograd.grad((steps_of(model, x, 3)[0] * weight).sum(), wanted)
    for expected, got in zip(one, two, strict=True):
        assert (got - expected).norm() <= 1e-4 * expected.norm()


def test_gradients_reach_the_state(name: str) -> None:
    """Back to the potentials before the step, and from those after it; equal with and without operators."""
    both = []
    for compiled in (False, True):
        model, x = network(name, compiled=compiled, **taken(name, {"width": 4})), pictures(3)
        with torch.no_grad():
            _, state = steps_of(model, x, 2)
        if not state:
            return
        state = {name: tensor.contiguous().requires_grad_() for name, tensor in state.items()}
        logits, after = model.step(model.encode(x), state)
        loss = logits.sum() + sum(tensor.square().sum() for tensor in after.values())
        both.append(torch.autograd.grad(loss, list(state.values())))
    for expected, got in zip(*both, strict=True):
        assert expected.norm() > 0
        assert (got - expected).norm() <= 1e-4 * expected.norm()
