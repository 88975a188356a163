"""Derivatives beyond plain backward: second ones, ``torch.func``, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NEURONS, needs_compiler, needs_tiles, network, pictures
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor
from torch.nn import functional as F

from tdsnn.kernels.columns import gather_columns
from tdsnn.kernels.convolution import _CONVOLUTION
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF

LABELS = torch.tensor([1, 3])


@pytest.fixture(scope="module", params=[False, True], ids=["eager", "compiled"])
def spiking(request: pytest.FixtureRequest) -> Model:
    return network("sresnet18", compiled=request.param, width=4, timesteps=2)


def gradient(model: Model, x: Tensor, *, create_graph: bool = False) -> Tensor:
    """Of a loss that is linear in the logits: all second derivatives are those of the network."""
    weight = torch.randn(len(x), 10, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad((model(x) * weight).sum(), x, create_graph=create_graph)
    return grad


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
@settings(max_examples=25, deadline=None)
@given(config=NEURONS, seed=st.integers(0, 1000))
def test_second_derivatives_of_a_layer_are_those_of_spikingjelly(
    compiled: bool, config: LIFConfig, seed: int
) -> None:
    layer = LIF(config)
    layer.compiled = compiled
    reference = neuron.LIFNode(
        tau=config.tau,
        decay_input=config.decay_input,
        v_threshold=config.v_threshold,
        v_reset=config.v_reset,
        surrogate_function=surrogate.ATan(alpha=config.surrogate_alpha),
        detach_reset=config.detach_reset,
        step_mode="m",
    )
    draws = torch.Generator().manual_seed(seed)
    current = (2 * torch.randn(3, 2, 5, generator=draws)).requires_grad_()
    weight = torch.randn(3, 2, 5, generator=draws)
    products = []
    for run in (layer, reference):
        # Linear in the spikes, so that all of the second derivative is the layer's.
        (first,) = torch.autograd.grad((run(current) * weight).sum(), current, create_graph=True)
        products.append(torch.autograd.grad(first.square().sum(), current)[0])
    torch.testing.assert_close(*products, rtol=1e-3, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_second_derivatives_of_a_compiled_network_are_those_of_the_eager_one(training: bool) -> None:
    """In training mode also through the statistics of the batch."""
    products = []
    for compiled in (False, True):
        model = network("sresnet18", compiled=compiled, width=4, timesteps=2).train(training)
        x = pictures(2).requires_grad_()
        first = gradient(model, x, create_graph=True)
        wanted = [x, *model.parameters()]
        products.append(torch.autograd.grad(first.square().sum(), wanted, allow_unused=True))
    assert products[0][0].norm() > 0
    for expected, got in zip(*products, strict=True):
        assert (expected is None) == (got is None)
        if expected is not None:
            assert (got - expected).norm() <= 1e-3 * expected.norm() + 1e-6


def test_torch_func_gives_the_gradients_of_autograd(spiking: Model) -> None:
    x = pictures(2)

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(spiking(x), LABELS)

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected, rtol=1e-4, atol=1e-6)
    logits, pullback = torch.func.vjp(spiking, x)
    torch.testing.assert_close(logits, spiking(x))
    weight = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    (pulled,) = pullback(weight)
    torch.testing.assert_close(pulled, gradient(spiking, leaf), rtol=1e-4, atol=1e-5)


def test_vmap_is_a_loop(spiking: Model) -> None:
    """Of the model, and of gradients of single samples with respect to the weights."""
    x, parameters = pictures(2), {name: each.detach() for name, each in spiking.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(spiking, parameters, (image[None],))
        return F.cross_entropy(logits, label[None])

    torch.testing.assert_close(torch.vmap(lambda image: spiking(image[None])[0])(x), spiking(x))
    alone = [torch.func.grad(loss)(parameters, image, label) for image, label in zip(x, LABELS, strict=True)]
    mapped = torch.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, LABELS)
    for name, gradients in mapped.items():
        torch.testing.assert_close(
            gradients, torch.stack([each[name] for each in alone]), rtol=1e-4, atol=1e-6
        )


def test_forward_mode_is_refused(spiking: Model) -> None:
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(spiking, (pictures(2),), (pictures(2),))
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(pictures(2), pictures(2))
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            spiking(dual)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
def test_second_derivatives_of_chosen_columns(compiled: bool) -> None:
    columns = torch.tensor([[0, 2, 2], [1, 0, 3]])
    matrix = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def second(chosen: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(chosen.pow(3).sum(), matrix, create_graph=True)
        return torch.autograd.grad(first.square().sum(), matrix)[0]

    expected = second(matrix[:, columns].transpose(0, 1))
    torch.testing.assert_close(second(gather_columns(matrix, columns, compiled=compiled)), expected)


@needs_tiles
def test_second_derivatives_of_the_convolution() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, 5, 5, generator=draws).bfloat16().requires_grad_()
    weight = torch.randn(32, 32, 3, 3, generator=draws).requires_grad_()

    def second(out: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(out.float().pow(3).sum(), [x, weight], create_graph=True)
        return list(torch.autograd.grad(sum(each.float().square().sum() for each in first), [x, weight]))

    expected = second(F.conv2d(x, weight.bfloat16(), padding=1))
    for got, reference in zip(second(_CONVOLUTION(x, weight, 1)), expected, strict=True):
        assert (got - reference).float().norm() <= 0.02 * reference.float().norm()
