"""The compiled operators are operators of PyTorch: checked by its own means, exported and compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import EXAMPLES, NEURONS, needs_compiler, needs_tiles, network, pictures
from torch import Tensor
from torch.nn import functional as F

from tdsnn.kernels import columns
from tdsnn.kernels.bn_add_lif import bn_add_lif
from tdsnn.kernels.lif import LIFConfig, differentiable_lif, lif
from tdsnn.models._base import Model

pytestmark = needs_compiler
OPERATORS = torch.ops.tdsnn
COMMON_LIF = (2.0, 1.0, 0.0, True, True, 2.0)
SOFT_LIF = (1.5, 0.5, None, False, False, 1.0)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws).to(dtype).requires_grad_(grad)


def normalisation(of_batch: bool, *, grad: bool) -> tuple[Any, ...]:
    mean, deviation = numbers(5, seed=1), numbers(5, seed=2)
    parameters = (numbers(5, seed=3, grad=grad), numbers(5, seed=4, grad=grad))
    return (mean, deviation.square(), *parameters, 1e-5, of_batch)


def layer(kind: str, *, grad: bool) -> tuple[Any, ...]:
    """Arguments of the layer's operator for 3 steps of 4 rows of 5 channels."""
    plain = (None, None, None, None, 0.0, False)
    if kind == "alone":
        return (numbers(3, 4, 5, grad=grad), *plain, None, *plain, None, 3, False, *COMMON_LIF)
    if kind == "constant":
        norm = normalisation(False, grad=grad)
        return (numbers(4, 5, grad=grad), *norm, None, *plain, None, 3, True, *SOFT_LIF)
    norm, initial = normalisation(True, grad=grad), numbers(4, 5, seed=6, grad=grad)
    shortcut = numbers(3, 4, 5, seed=5, grad=grad)
    return (numbers(3, 4, 5, grad=grad), *norm, shortcut, *norm, initial, 3, True, *COMMON_LIF)


@pytest.mark.parametrize("kind", ["alone", "constant", "shortcut and state"])
def test_layer_is_a_sound_operator(kind: str) -> None:
    torch.library.opcheck(OPERATORS.bn_add_lif.default, layer(kind, grad=True))
    arguments = layer(kind, grad=False)
    given = [arguments[k] is not None for k in (0, 7, 14, 3, 4, 10, 11)]
    grad_last = numbers(4, 5, seed=8) if arguments[16] else None
    torch.library.opcheck(
        OPERATORS.bn_add_lif_backward.default, (numbers(3, 4, 5, seed=7), grad_last, given, *arguments)
    )


def test_the_adaptive_backward_pass_is_a_sound_operator() -> None:
    arguments = layer("alone", grad=False)
    noted = numbers(3, 4, 5, seed=8).abs(), numbers(3, 4, 5, seed=9).abs()
    wanted = [True, *[False] * 6]
    torch.library.opcheck(
        OPERATORS.bn_add_lif_adaptive_backward.default,
        (numbers(3, 4, 5, seed=7), None, wanted, *noted, *arguments),
    )


def test_the_other_operators_are_sound() -> None:
    chosen = torch.tensor([[0, 2, 2], [1, 0, 3]])
    for dtype in (torch.float32, torch.bfloat16):
        torch.library.opcheck(OPERATORS.moments.default, (numbers(7, 5, dtype=dtype),))
        matrix = numbers(6, 5, dtype=dtype, grad=True)
        torch.library.opcheck(columns._GATHER, (matrix, chosen))
        torch.library.opcheck(columns._SCATTER, (numbers(2, 6, 3), chosen, 5, dtype))


@needs_tiles
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_a_sound_operator(stride: int) -> None:
    x = numbers(2, 32, 6, 6, dtype=torch.bfloat16, grad=True)
    weight = numbers(32, 32, 3, 3, seed=1, grad=True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATORS.convolution.default, (x, weight, stride), test_utils=checks)
    grad = F.conv2d(x, weight.bfloat16(), stride=stride, padding=1).detach()
    torch.library.opcheck(OPERATORS.convolution_weight_gradient.default, (x.detach(), grad, stride))


@settings(max_examples=EXAMPLES, deadline=None)
@given(config=NEURONS, steps=st.integers(1, 5), seed=st.integers(0, 1000), at_rest=st.booleans())
def test_three_paths_of_a_layer_agree(config: LIFConfig, steps: int, seed: int, at_rest: bool) -> None:
    """Spikes, last potential, and gradients at currents and initial potential."""
    results = []
    for path in ("compiled", "eager", "differentiable"):
        current = (2 * numbers(steps, 37, seed=seed)).requires_grad_()
        initial = None if at_rest else numbers(37, seed=seed + 1, grad=True)
        if path == "compiled":
            spikes, last = bn_add_lif(
                current[..., None],
                config,
                steps=steps,
                initial=None if initial is None else initial[:, None],
                keep_last=True,
            )
            spikes, last = spikes[..., 0], last[..., 0]
        elif path == "eager":
            spikes, last = lif(current, config, initial)
        else:
            spikes, last = differentiable_lif(current, initial, config=config)
        weights = numbers(steps, 37, seed=seed + 2), numbers(37, seed=seed + 3)
        loss = (spikes * weights[0]).sum() + (last * weights[1]).sum()
        inputs = [current] if initial is None else [current, initial]
        results.append((spikes, last, *torch.autograd.grad(loss, inputs)))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        for got, expected in zip(other[1:], results[0][1:], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def compiled_model() -> Model:
    return network("sresnet18", compiled=True)


def test_export_holds_the_operators(compiled_model: Model) -> None:
    x = pictures(2)
    exported = torch.export.export(compiled_model, (x,))
    called = [str(node.target) for node in exported.graph.nodes]
    assert called.count("tdsnn.bn_add_lif.default") == len(compiled_model.neurons)
    torch.testing.assert_close(exported.module()(x), compiled_model(x))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_torch_compile_gives_the_same(training: bool) -> None:
    """In one graph: logits, gradients and running statistics."""
    outcomes = []
    for compiling in (False, True):
        model = network("sresnet18", compiled=True, width=4).train(training)
        x = pictures(2).requires_grad_()
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiling else model
        logits = run(x)
        F.cross_entropy(logits, torch.tensor([1, 3])).backward()
        gradients = [x.grad, *(parameter.grad for parameter in model.parameters())]
        outcomes.append([logits.detach(), *gradients, *model.buffers()])
    for expected, got in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
