"""Attack-time surrogates: the same spikes, and the gradient that was asked for."""

from __future__ import annotations

import math

import pytest
import torch
from networks import network, pictures
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from tdsnn.errors import GateError, UsageError
from tdsnn.kernels.lif import LIFConfig
from tdsnn.kernels.surrogates import read_surrogate, read_surrogates, spelled
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF

LOCAL = {
    "atan-4": surrogate.ATan(alpha=4.0),
    "sigmoid-4": surrogate.Sigmoid(alpha=4.0),
    "triangle-0.5": surrogate.PiecewiseQuadratic(alpha=0.5),
    "rectangle-0.25": surrogate.Rect(alpha=0.25),
    "gaussian-1": surrogate.Erf(alpha=1.0),
}
NEURON = LIFConfig(decay_input=False)


def through(layer: LIF, text: str) -> LIF:
    layer.differentiate_through(read_surrogate(text))
    return layer


def gradient(layer: nn.Module, current: Tensor, weight: Tensor) -> Tensor:
    current = current.clone().requires_grad_()
    (found,) = torch.autograd.grad((layer(current) * weight).sum(), current)
    return found


def drive(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Currents and output gradients (T, N, C, H, W)."""
    draws = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(shape, generator=draws) + 0.5, torch.randn(shape, generator=draws)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("text", LOCAL)
def test_shapes_have_the_gradient_of_spikingjelly(text: str, soft: bool) -> None:
    current, weight = drive(4, 3, 5, 2, 2)
    config = LIFConfig(decay_input=False, v_reset=None if soft else 0.0, detach_reset=soft)
    theirs = neuron.LIFNode(
        decay_input=False,
        v_reset=config.v_reset,
        detach_reset=config.detach_reset,
        surrogate_function=LOCAL[text],
        step_mode="m",
    )
    found = gradient(through(LIF(config), text), current, weight)
    torch.testing.assert_close(found, gradient(theirs, current, weight), rtol=1e-5, atol=1e-6)
    assert found.count_nonzero() > 0.2 * found.numel()


@pytest.mark.parametrize("text", [*LOCAL, "straight-through"])
def test_an_adapter_gets_the_derivative_as_a_function_of_the_distance(text: str) -> None:
    above = torch.linspace(-3, 3, 101)
    slope = read_surrogate(text).derivative(above)
    assert slope.shape == above.shape
    assert slope.max() == slope[50]
    if text in LOCAL:
        leaf = above.clone().requires_grad_()
        (theirs,) = torch.autograd.grad(LOCAL[text](leaf).sum(), leaf)
        torch.testing.assert_close(slope, theirs)
    else:
        assert (slope == 1).all()


@pytest.mark.parametrize("text", ["assg", "pdsg", "hart", "bptr", "rga", "relu"])
def test_what_needs_more_than_the_potential_has_no_derivative(text: str) -> None:
    with pytest.raises(GateError, match=f"{text}.* is no function of the potential alone") as caught:
        _ = read_surrogate(text).derivative
    assert "atan-4" in caught.value.hint


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("text", [*LOCAL, "straight-through", "assg", "pdsg", "hart-1", "bptr", "rga"])
def test_spikes_and_the_network_itself_stay_as_they_are(text: str, compiled: bool) -> None:
    model = network("sresnet18", compiled=compiled)
    x = pictures(3)
    before = gradient(model, x, torch.ones(3, 10))
    other = model.with_surrogate(read_surrogate(text))
    assert torch.equal(other(x.clone().requires_grad_()), model(x))
    assert torch.equal(other.logits_over_time(x), model.logits_over_time(x))
    found = gradient(other, x, torch.ones(3, 10))
    assert not torch.allclose(found, before)
    assert found.isfinite().all()
    assert torch.equal(gradient(model, x, torch.ones(3, 10)), before)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert all(a is b for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_the_surrogate_of_training_gives_the_gradient_of_the_network_itself() -> None:
    model, x, weight = network("sresnet18"), pictures(3), torch.ones(3, 10)
    assert torch.equal(
        gradient(model.with_surrogate(read_surrogate("atan-2")), x, weight), gradient(model, x, weight)
    )


@pytest.mark.parametrize("text", ["assg", "triangle-0.5", "hart-1"])
def test_the_compiled_network_has_the_gradient_of_the_eager_one(text: str) -> None:
    x, weight = pictures(3), torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    eager, compiled = (
        network("sresnet18", compiled=each).with_surrogate(read_surrogate(text)) for each in (False, True)
    )
    for _ in range(3):
        torch.testing.assert_close(
            gradient(compiled, x, weight), gradient(eager, x, weight), rtol=1e-3, atol=1e-6
        )
    for ours, theirs in zip(compiled.neurons, eager.neurons, strict=True):
        assert ours.memory.keys() == theirs.memory.keys()
        for name, noted in ours.memory.items():
            torch.testing.assert_close(noted, theirs.memory[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["triangle-0.5", "assg"])
def test_layers_in_any_layout_and_step_by_step_have_their_gradient(text: str) -> None:
    current, weight = drive(4, 3, 5, 2, 2)
    plain = gradient(through(LIF(NEURON), text), current, weight)
    lasting = current.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 3))
    torch.testing.assert_close(gradient(through(LIF(NEURON), text), lasting, weight), plain)
    flat = gradient(through(LIF(NEURON), text), current.flatten(2), weight.flatten(2))
    torch.testing.assert_close(flat.view_as(plain), plain)
    alone = gradient(through(LIF(NEURON), text), current.flatten(1), weight.flatten(1))
    torch.testing.assert_close(alone.view_as(plain), plain)
    if text == "triangle-0.5":
        leaf, state, layer, spikes = current.clone().requires_grad_(), {}, through(LIF(NEURON), text), []
        for step in range(4):
            spikes.append(layer(leaf[step : step + 1], state, "v"))
        (stepwise,) = torch.autograd.grad((torch.cat(spikes) * weight).sum(), leaf)
        torch.testing.assert_close(stepwise, plain)


def test_parameters_too_have_the_gradient_of_the_surrogate() -> None:
    x, found = pictures(4), []
    for compiled in (False, True):
        model = network("sresnet18", compiled=compiled).with_surrogate(read_surrogate("triangle-0.5"))
        found.append(
            torch.autograd.grad(model.train()(x).sum(), [model.act1 and model.bn1.weight, model.bn1.bias])
        )
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def _potentials(current: Tensor) -> Tensor:
    """Before firing, (T, ...), of the neuron v <- v / 2 + I with threshold 1 and reset to 0."""
    v, found = torch.zeros_like(current[0]), []
    for step in current:
        h = v / 2 + step
        found.append(h)
        v = h * (h < 1)
    return torch.stack(found)


def test_adaptive_sharpness_follows_its_recursion() -> None:
    current, weight = drive(1, 2, 3, 2, 2)
    layer = through(LIF(NEURON), "assg-0.425")
    mean, spread = torch.ones_like(current), torch.zeros_like(current)
    numerator = 2 / math.pi * math.tan(math.pi * 0.425)
    assert numerator == pytest.approx(2.652, abs=1e-3)
    for shift in (0.0, 0.3, -0.2):
        above = _potentials(current + shift) - 1
        mean = 0.9 * mean + 0.1 * above.abs()
        spread = 0.9 * spread + 0.1 * (above.abs() - mean).abs()
        alpha = numerator / (mean + 1.5 * spread + 1e-4)
        expected = weight * alpha / 2 / (1 + (math.pi / 2 * alpha * above) ** 2)
        torch.testing.assert_close(gradient(layer, current + shift, weight), expected)


def test_statistics_go_with_the_samples_that_are_kept() -> None:
    model, x, weight = network("sresnet18"), pictures(4), torch.ones(4, 10)
    whole = model.with_surrogate(read_surrogate("assg"))
    gradient(whole, x, weight)
    expected = gradient(whole, x, weight)
    part = model.with_surrogate(read_surrogate("assg"))
    gradient(part, x, weight)
    with pytest.raises(UsageError, match="noted 4 samples and meets 2") as caught:
        gradient(part, x[:2], weight[:2])
    assert "keep_samples" in caught.value.hint
    part.keep_samples(torch.tensor([True, False, False, True]))
    torch.testing.assert_close(gradient(part, x[[0, 3]], weight[:2]), expected[[0, 3]], rtol=1e-3, atol=1e-6)
    assert not model.neurons[0].memory


def test_potential_dependent_slopes_are_normal_densities_of_each_sample() -> None:
    current, weight = drive(3, 2, 2, 4, 4)
    found = gradient(through(LIF(NEURON), "pdsg"), current[:, 1:], weight[:, 1:])
    alone = gradient(through(LIF(NEURON), "pdsg"), current, weight)[:, 1:]
    torch.testing.assert_close(found, alone)
    potentials = _potentials(current[:1])
    sigma = potentials.std((3, 4), keepdim=True)
    expected = torch.distributions.Normal(sigma / 2, sigma).log_prob(potentials - 1).exp() * weight[:1]
    once = gradient(through(LIF(NEURON), "pdsg"), current[:1], weight[:1])
    torch.testing.assert_close(once, expected)
    still = gradient(
        through(LIF(NEURON), "pdsg"), torch.full((1, 1, 1, 2, 2), 0.5), torch.ones(1, 1, 1, 2, 2)
    )
    assert still.flatten()[0] == pytest.approx(math.exp(-0.5) / math.sqrt(2 * math.pi))


def test_rate_rules_are_those_of_their_papers() -> None:
    current, weight = drive(4, 2, 3, 2, 2)
    above = _potentials(current) - 1
    triangle = (1 / 0.8**2) * (0.8 - above.abs()).clamp(min=0)
    hart = (weight * triangle).mean(0).expand_as(current)
    torch.testing.assert_close(gradient(through(LIF(NEURON), "hart-0.8"), current, weight), hart)
    fired = (above >= 0).any(0)
    assert 0 < fired.sum() < fired.numel()
    torch.testing.assert_close(gradient(through(LIF(NEURON), "bptr"), current, weight), weight * fired)
    mean = current.mean(0)
    slope = torch.where(mean <= 0.5, 0.2, (1 - 0.2 + 0.2 * 0.5) / 1.5) * ((mean >= 0) & (mean <= 2))
    torch.testing.assert_close(gradient(through(LIF(NEURON), "rga"), current, weight), weight * slope)
    decayed = through(LIF(LIFConfig(decay_input=True)), "rga")
    torch.testing.assert_close(gradient(decayed, 2 * current, weight), weight * slope / 2)


def test_the_rate_network_puts_out_its_mean_input_clipped() -> None:
    current, weight = drive(4, 2, 3)
    layer = through(LIF(NEURON), "relu")
    rate = current.mean(0)
    torch.testing.assert_close(layer(current), rate.clamp(0, 1).expand_as(current))
    torch.testing.assert_close(
        gradient(layer, current, weight), (weight.sum(0) / 4 * ((rate > 0) & (rate < 1))).expand_as(current)
    )
    model = network("sresnet18")
    other = model.with_surrogate(read_surrogate("relu"))
    assert not torch.allclose(other(pictures(2)), model(pictures(2)))


def test_a_network_without_spikes_is_its_own() -> None:
    model = network("resnet18")
    assert isinstance(model, Model)
    assert model.with_surrogate(read_surrogate("atan-4")) is model


def test_surrogates_are_read_as_they_are_spelled() -> None:
    for text in (
        "atan-4",
        "straight-through",
        "assg-0.425",
        "hart-0.5",
        "as-trained",
        "sweep",
        "bptr+atan-1",
    ):
        assert spelled(read_surrogates(text)) == text
    assert [str(one) for one in read_surrogates("atan+assg+hart+triangle")] == [
        "atan-2",
        "assg-0.425",
        "hart-0.5",
        "triangle-1",
    ]
    assert [str(one) for one in read_surrogates("sweep")] == [f"atan-{alpha}" for alpha in (1, 2, 4, 8, 16)]
    assert read_surrogates("as-trained+as-trained") == (None,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atn-4", "no surrogate called 'atn-4'. Did you mean atan"),
        ("atan-x", "atan takes a number above 0, not 'x'"),
        ("atan-0", "atan takes a number above 0, not '0'"),
        ("atan-inf", "atan takes a number above 0, not 'inf'"),
        ("assg-0.5", "assg takes a number above 0 and below 0.5, not '0.5'"),
        ("bptr-1", "bptr takes no number, not '1'"),
        ("", "no surrogate called ''"),
        ("atan-1+", "no surrogate called ''"),
    ],
)
def test_what_is_no_surrogate_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_surrogates(text)
    assert message in caught.value.message
    assert "straight-through" in caught.value.hint
