"""The LIF layer and the spiking ResNet against SpikingJelly's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NEURONS
from second_device import second_device
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import spiking_resnet

from tdsnn.errors import UsageError
from tdsnn.kernels import lif as eager
from tdsnn.kernels.lif import LIFConfig
from tdsnn.kernels.status import BN_ADD_LIF, EAGER, operators
from tdsnn.models._neurons import LIF
from tdsnn.models._registry import MODELS
from tdsnn.topography.outputs import capture_outputs


def reference(spec: LIFConfig) -> neuron.LIFNode:
    return neuron.LIFNode(
        tau=spec.tau,
        decay_input=spec.decay_input,
        v_threshold=spec.v_threshold,
        v_reset=spec.v_reset,
        surrogate_function=surrogate.ATan(alpha=spec.surrogate_alpha),
        detach_reset=spec.detach_reset,
        step_mode="m",
    )


@settings(max_examples=60, deadline=None)
@given(spec=NEURONS, steps=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_lif_equals_spikingjelly(spec: LIFConfig, steps: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    current = (2 * torch.randn(steps, 3, 5, generator=draws) + 0.5).requires_grad_()
    weight = torch.randn(steps, 3, 5, generator=draws)
    ours, theirs = LIF(spec)(current), reference(spec)(current)
    assert torch.equal(ours, theirs)
    (ours_grad,) = torch.autograd.grad((ours * weight).sum(), current)
    (theirs_grad,) = torch.autograd.grad((theirs * weight).sum(), current)
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("piece", [3, 1 << 14])
def test_pieces_and_memory_layout_change_nothing(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "_PIECE", piece)
    plain = 2 * torch.randn(4, 2, 3, 5, 7)
    lasting = plain.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    once = plain[:1].expand(4, *plain.shape[1:])
    layer = LIF(LIFConfig())
    assert torch.equal(layer(lasting), reference(LIFConfig())(plain))
    assert layer(lasting).stride() == lasting.stride()
    assert torch.equal(layer(once), reference(LIFConfig())(once.contiguous()))


def test_half_precision_keeps_the_membrane_in_full_precision() -> None:
    current = (2 * torch.randn(4, 50)).bfloat16()
    out = LIF(LIFConfig())(current)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out.float(), reference(LIFConfig())(current.float()))


def test_double_precision_is_kept() -> None:
    config = LIFConfig(tau=3.0, v_threshold=100.0)
    current, state, node = torch.randn(4, 50, dtype=torch.float64), {}, reference(config)
    LIF(config)(current, state, "silent")
    node(current)
    torch.testing.assert_close(state["silent"], node.v, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_cuda_path_equals_the_cpu_one() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    current = 2 * torch.randn(4, 1000)
    assert torch.equal(LIF(LIFConfig())(current.cuda()).cpu(), LIF(LIFConfig())(current))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": 1.0}, "above 1"),
        ({"surrogate": "step"}, "'step' is not known"),
        ({"surrogate_alpha": 0.0}, "must be positive"),
        ({"v_threshold": 0.0}, "v_threshold must be above the resting potential 0.0"),
        ({"v_threshold": -1.0, "v_reset": None}, "above the resting potential"),
        *(
            ({name: value}, f"{name} must be a finite number")
            for name in ("tau", "v_threshold", "v_reset", "surrogate_alpha")
            for value in (float("nan"), float("inf"), "2", True)
        ),
        ({"decay_input": 1}, "decay_input must be true or false"),
        ({"detach_reset": "no"}, "detach_reset must be true or false"),
    ],
)
def test_wrong_neurons_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LIFConfig(**wrong)


@pytest.mark.parametrize("compiled", [False, True])
def test_network_equals_spikingjelly(compiled: bool) -> None:
    """Spikes of every block, logits, input and weight gradients, with copied weights, in training mode."""
    torch.manual_seed(0)
    theirs = spiking_resnet.spiking_resnet18(
        spiking_neuron=neuron.LIFNode,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        num_classes=10,
    )
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = torch.nn.Identity()
    ours = MODELS.load("sresnet18")()
    if compiled and not ours.compile_operators():
        pytest.skip("no C++ compiler")
    functional.set_step_mode(theirs, "m")
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 16, 16)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    theirs_seq = _with_stem(theirs, one.unsqueeze(0).expand(spec_steps := 4, *one.shape))
    with capture_outputs(ours, ["layer4.1"]) as outputs:
        ours_seq = ours.logits_over_time(two)
    assert ours_seq.shape[0] == spec_steps
    torch.testing.assert_close(ours_seq, theirs_seq, rtol=1e-4, atol=1e-5)
    assert 0 < float(outputs["layer4.1"].detach().mean()) < 1
    labels = torch.tensor([3, 7])
    torch.nn.functional.cross_entropy(theirs_seq.mean(0), labels).backward()
    torch.nn.functional.cross_entropy(ours_seq.mean(0), labels).backward()
    _close(two.grad, one.grad)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        _close(a.grad, b.grad, name)


def _with_stem(net: torch.nn.Module, x_TNCHW: torch.Tensor) -> torch.Tensor:
    """SpikingJelly's forward with the plain (single-image) stem convolution applied to each step."""
    steps = x_TNCHW.shape[:2]
    x = net.sn1(net.bn1(net.conv1(x_TNCHW.flatten(0, 1)).unflatten(0, steps)))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
    return net.fc(net.avgpool(x).flatten(2))


def _close(ours: torch.Tensor | None, theirs: torch.Tensor | None, name: str = "input") -> None:
    assert ours is not None
    assert theirs is not None
    error = (ours - theirs).norm() / theirs.norm().clamp_min(1e-12)
    assert error < 1e-4, f"{name}: relative gradient error {error:.2e}"


def test_on_rocm_the_eager_path_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """SpikingJelly's kernels refuse it, although a tensor there says cuda too."""
    current = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)) + 1
    expected = LIF(LIFConfig())(current)
    assert expected.any()
    monkeypatch.setattr("tdsnn.models._neurons._spikingjelly", lambda *_: pytest.fail("it was asked"))
    monkeypatch.setattr(torch.version, "hip", "7.0")
    with second_device():
        assert torch.equal(LIF(LIFConfig())(current.to("cuda")).cpu(), expected)
    paths = {one.operator: one.path for one in operators(torch.device("cuda"))}
    assert paths[BN_ADD_LIF] == EAGER


def test_on_rocm_a_large_layer_takes_no_more_launches_than_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    launches = []
    for neurons in (2, 2 * eager._PIECE + 1):
        with second_device() as ledger:
            current = torch.ones(2, neurons, device="cuda", requires_grad=True)
            LIF(LIFConfig())(current).sum().backward()
            launches.append(ledger.launches.total())
    assert launches[0] == launches[1]
