"""The compiled operators against their literal equivalents, and what happens without a compiler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import EXAMPLES, NEURONS, needs_compiler, needs_tiles
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn.kernels import _library
from tdsnn.kernels.convolution import Conv2d, has_tiles, weight_gradient
from tdsnn.kernels.lif import LIFConfig, lif
from tdsnn.kernels.moments import moments
from tdsnn.models._neurons import LIF, bn_add_act
from tdsnn.models._registry import MODELS
from tdsnn.topography.outputs import capture_outputs


def literal(
    bn: nn.BatchNorm2d,
    current: Tensor,
    neuron: LIFConfig,
    *,
    steps: int,
    constant: bool,
    shortcut: Tensor | None,
    shortcut_bn: nn.BatchNorm2d | None,
) -> Tensor:
    """The layer from PyTorch's normalisation and the eager neurons."""
    out = bn(current)
    if constant:
        out = out.repeat(steps, 1, 1, 1)
    if shortcut is not None:
        out = out + (shortcut if shortcut_bn is None else shortcut_bn(shortcut))
    spikes, _ = lif(out.reshape(steps, -1), neuron)
    return spikes.view(steps, -1, *out.shape[1:])


def normal(*shape: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(*shape, generator=draws) + shift
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def batch_norm(channels: int, *, seed: int, training: bool) -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(channels).train(training)
    for index, tensor in enumerate((bn.weight, bn.bias, bn.running_mean, bn.running_var)):
        assert tensor is not None
        tensor.data = normal(channels, seed=seed + index, scale=0.2, shift=float(index in (0, 3)) + 0.2)
    return bn


@needs_compiler
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    neuron=NEURONS,
    steps=st.integers(1, 8),
    size=st.tuples(st.integers(1, 3), st.sampled_from([1, 5, 16, 48]), st.integers(1, 7), st.integers(1, 5)),
    kind=st.sampled_from(["alone", "constant", "plain shortcut", "normalised shortcut"]),
    training=st.booleans(),
    seed=st.integers(0, 10_000),
)
@example(neuron=LIFConfig(), steps=4, size=(2, 5, 4, 5), kind="constant", training=True, seed=0)
def test_layer_equals_its_parts(
    neuron: LIFConfig, steps: int, size: tuple[int, int, int, int], kind: str, training: bool, seed: int
) -> None:
    """Spikes, gradients of all operands and parameters, and running statistics."""
    images, channels, height, width = size
    constant = kind == "constant"
    rows = images if constant else steps * images
    training = training and rows * height * width > 1
    results = []
    for compiled in (False, True):
        layer = LIF(neuron)
        layer.compiled = compiled
        bn = batch_norm(channels, seed=seed, training=training)
        bn2 = batch_norm(channels, seed=seed + 9, training=training) if kind.startswith("norm") else None
        z = normal(rows, channels, height, width, seed=seed + 1, scale=2.0, shift=0.5).requires_grad_()
        r = (
            normal(rows, channels, height, width, seed=seed + 2).requires_grad_()
            if "shortcut" in kind
            else None
        )
        common = {"steps": steps, "constant": constant, "shortcut": r, "shortcut_bn": bn2}
        out = bn_add_act(layer, bn, z, **common) if compiled else literal(bn, z, neuron, **common)
        weight = normal(*out.shape, seed=seed + 3)
        (out * weight).sum().backward()
        tensors = {"z": z.grad, "w": bn.weight.grad, "b": bn.bias.grad}
        tensors |= {"mean": bn.running_mean, "var": bn.running_var, "n": bn.num_batches_tracked}
        if r is not None:
            tensors["r"] = r.grad
        if bn2 is not None:
            tensors |= {"w2": bn2.weight.grad, "b2": bn2.bias.grad, "mean2": bn2.running_mean}
        results.append((out.detach(), tensors))
    (expected, one), (got, two) = results
    if not torch.equal(got, expected):  # a potential within rounding of the threshold; very rare
        assert (got != expected).sum() == 1
        return
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_half_precision_rounds_only_what_is_stored(threads: int) -> None:
    bn, half_bn = (batch_norm(32, seed=0, training=True) for _ in range(2))
    z = normal(8, 32, 14, 14, seed=1, scale=2.0).bfloat16().requires_grad_()
    layer = LIF(LIFConfig())
    layer.compiled = True
    out = bn_add_act(layer, half_bn, z, steps=4)
    expected = literal(bn, z.float(), LIFConfig(), steps=4, constant=False, shortcut=None, shortcut_bn=None)
    assert out.dtype == torch.bfloat16
    assert (out.float() != expected).float().mean() < 1e-4
    weight = normal(*out.shape, seed=2).bfloat16()
    (ours,) = torch.autograd.grad(out, z, weight)
    (theirs,) = torch.autograd.grad(expected, z, weight.float())
    assert (ours - theirs).norm() / theirs.norm() < 0.01
    unit_in_last_place = 2 ** (theirs.abs().log2().floor() - 7)
    apart = (ours - theirs).abs() - 1e-5  # rounding in fp32, of gradients around 1
    assert (apart <= unit_in_last_place).unflatten(0, (4, -1)).all(0)[(out == expected).all(0)].all()


def outlier(x: Tensor, *, row: int, deviations: float) -> Tensor:
    x[row] = x.mean() + deviations * x.std()
    return x


@needs_compiler
@pytest.mark.parametrize(
    "x",
    [
        normal(17_500, 3, seed=0, scale=0.01, shift=100.0),
        outlier(normal(17_500, 3, seed=0, shift=0.5), row=0, deviations=300),
        outlier(normal(20, 40, seed=0, shift=0.5), row=0, deviations=300),
        outlier(normal(1_000, 5, seed=0), row=500, deviations=1e4),
        normal(2, 1, seed=0),
    ],
    ids=["far from zero", "first row far out", "few rows", "another row far out", "two rows"],
)
def test_moments_do_not_cancel(x: Tensor) -> None:
    mean, variance = moments(x)
    exact = x.double()
    torch.testing.assert_close(variance.double(), exact.var(0, unbiased=False), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(mean.double(), exact.mean(0), rtol=1e-6, atol=1e-7)


@needs_compiler
def test_moments_of_what_is_no_number_are_none() -> None:
    x = normal(50, 3, seed=0)
    x[::2, 1], x[7, 2] = torch.nan, torch.inf
    mean, variance = moments(x)
    assert mean.isfinite().tolist() == variance.isfinite().tolist() == [True, False, False]


@needs_compiler
def test_a_module_with_a_hook_is_not_bypassed() -> None:
    model = MODELS.load("sresnet18")(width=4)
    model.compile_operators()
    with capture_outputs(model, ["layer1.0.bn1", "layer1.0"]) as outputs:
        model(torch.rand(2, 3, 8, 8))
    assert set(outputs) == {"layer1.0.bn1", "layer1.0"}


@needs_compiler
def test_the_same_call_gives_the_same_bits() -> None:
    """Sums of threads are put together in a fixed order."""
    model = MODELS.load("sresnet18")(width=16)
    model.compile_operators()
    x, y = normal(8, 3, 32, 32, seed=0), torch.arange(8)

    def gradients() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(x).float(), y)
        return list(torch.autograd.grad(loss, list(model.parameters())))

    for one, two in zip(gradients(), gradients(), strict=True):
        assert torch.equal(one, two)


@needs_compiler
@pytest.mark.parametrize(("with_shortcut", "bytes_each"), [(False, 2), (True, 4)])
def test_the_operands_alone_are_kept_for_the_backward_pass(with_shortcut: bool, bytes_each: int) -> None:
    """Bytes of tensors in bf16 for each neuron and step."""
    z, r = (normal(4, 32, 9, 9, seed=seed).bfloat16().requires_grad_() for seed in (0, 1))
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    layer, bn = LIF(LIFConfig()), batch_norm(32, seed=0, training=True)
    layer.compiled = True
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        bn_add_act(layer, bn, z, steps=4, shortcut=r if with_shortcut else None)
    statistics_and_parameters = 4 * 4 * 32
    assert sum(kept.values()) == bytes_each * z.numel() + statistics_and_parameters


@needs_compiler
def test_only_what_is_asked_for_is_computed() -> None:
    """An attack wants the gradient at the image alone; frozen weights get none."""
    bn = batch_norm(16, seed=0, training=False)
    layer = LIF(LIFConfig())
    layer.compiled = True
    z = normal(4, 16, 6, 6, seed=1).requires_grad_()
    (alone,) = torch.autograd.grad(bn_add_act(layer, bn, z, steps=4).sum(), z)
    assert bn.weight.grad is None
    bn.requires_grad_(False)
    (frozen,) = torch.autograd.grad(bn_add_act(layer, bn, z, steps=4).sum(), z)
    assert torch.equal(alone, frozen)


@needs_tiles
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "size",
    [
        (3, 32, 32, 9, 9),
        (5, 96, 32, 7, 8),
        (2, 32, 64, 4, 4),
        (300, 32, 64, 5, 3),  # more than one block of images for one thread, the last one not full
        (3, 64, 96, 6, 5),
        (1, 64, 32, 32, 31),
        (2, 32, 32, 1, 1),
    ],
)
def test_weight_gradient_equals_the_full_precision_one(
    size: tuple[int, int, int, int, int], stride: int, threads: int
) -> None:
    images, channels, out, height, width = size
    x = normal(images, channels, height, width, seed=0).bfloat16()
    weight = normal(out, channels, 3, 3, seed=1).requires_grad_()
    result = F.conv2d(x.float(), weight, stride=stride, padding=1)
    grad = normal(*result.shape, seed=2).bfloat16()
    expected = torch.autograd.grad(result, weight, grad.float())[0]
    got = weight_gradient(x, grad, stride)
    assert (got - expected).norm() / expected.norm() < 1e-5


@needs_tiles
@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": 1, "stride": (1, 2)},
        {"padding": 1, "dilation": 2},
        {"padding": 1, "groups": 2},
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_convolution_equals_pytorch_under_autocast(settings: dict[str, Any]) -> None:
    ours, theirs = (kind(32, 64, 3, bias=False, **settings) for kind in (Conv2d, nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    ours.compiled = has_tiles()
    grads = []
    for conv in (ours, theirs):
        x = normal(4, 32, 9, 9, seed=0).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        (out.float() * normal(*out.shape, seed=1)).sum().backward()
        assert conv.weight.grad is not None
        assert x.grad is not None
        grads.append((out, x.grad, conv.weight.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])
    torch.testing.assert_close(grads[0][2], grads[1][2], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("compiler", ["", "false"])
def test_without_a_working_compiler_the_eager_path_runs(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    model = MODELS.load("sresnet18")(width=4).eval()
    x = torch.rand(2, 3, 8, 8)
    expected = model(x)
    monkeypatch.setenv("TDSNN_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", str(tmp_path))
    _library.library.cache_clear()
    try:
        assert not model.compile_operators()
        assert ("no C++ compiler" in _library.library().reason) == (not compiler)
        assert torch.equal(model(x), expected)
    finally:
        _library.library.cache_clear()
