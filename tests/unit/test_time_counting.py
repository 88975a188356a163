"""Counts of operations: by hand, and against the counters of NeuroBench and of SpikingJelly."""

from __future__ import annotations

import networks
import pytest
import torch
from torch import Tensor, nn

from tdsnn.errors import GateError
from tdsnn.models._base import Model
from tdsnn.temporal._counting import Counts, by_step_and_sample, counting, fan_out


def count(model: Model, x: Tensor) -> Counts:
    activations = {name: one for name, one in model.named_modules() if one in model.neurons}
    with torch.no_grad(), counting(model, activations, samples=len(x), time_first=True) as counts:
        model(x)
    return counts


def small(*, zeros: bool = False) -> Model:
    model = networks.network("sresnet18", width=4, timesteps=3)
    if zeros:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight[:, ::2] = 0
    return model


def total(counts: Counts, *, binary: bool) -> float:
    return float(
        sum((one.effective_SN * (one.binary_SN == binary)).sum().item() for one in counts.synapses.values())
    )


def test_stem_and_one_block_by_hand() -> None:
    """Each operation of convolution, step, output place and weight, one by one."""
    model, x = small(), networks.pictures(1)
    inputs: dict[str, Tensor] = {}
    names = ("conv1", "layer1.0.conv1", "layer1.0.conv2")
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: inputs.update({name: args[0]})
        )
        for name in names
    ]
    counts = count(model, x)
    for hook in hooks:
        hook.remove()
    for name, channels in zip(names, (2, 4, 4), strict=True):
        found, padded = counts.synapses[name], nn.functional.pad(inputs[name], (1, 1, 1, 1))
        used = torch.zeros(len(padded))
        for row in range(16):
            for column in range(16):
                # Each input in the window meets one weight of each of the 4 output channels.
                window = padded[:, :, row : row + 3, column : column + 3]
                used += 4 * (window != 0).flatten(1).sum(1)
        assert found.effective_SN[:, 0].tolist() == used.tolist()
        # Of 16 places along a side the two at the border meet two rows of weights and not three.
        assert found.dense == 4 * channels * (3 * 16 - 2) ** 2
        assert found.padded == 4 * channels * 9 * 16 * 16
    image, spikes = counts.synapses["conv1"], counts.synapses["layer1.0.conv1"]
    assert image.before_activation
    assert image.effective_SN.shape == (1, 1), "the image is the same at every step"
    assert not image.binary_SN.any()
    assert not spikes.before_activation
    assert spikes.effective_SN.shape == (3, 1)
    assert spikes.binary_SN.all()
    assert counts.activity["layer1.0.act1"].units == 4 * 16 * 16


@pytest.mark.parametrize("zeros", [False, True])
def test_as_neurobench_counts(zeros: bool) -> None:
    """One image at a time, so that both decide for the same inputs whether they are binary."""
    pytest.importorskip("neurobench")
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    from tdsnn.models._neurons import LIF
    from tdsnn.temporal._counting import footprint_bytes, zero_weights

    model, x = small(zeros=zeros), networks.pictures(2)
    theirs = TorchModel(model)
    theirs.add_activation_module(LIF)
    for image in x[:, None]:
        ours = count(model, image)
        theirs.register_hooks()
        with torch.no_grad():
            found = SynapticOperations()(theirs, model(image), (image, None))
            sparsity = ActivationSparsity()(theirs, None, None)
        theirs.cleanup_hooks()
        assert found["Effective_MACs"] == total(ours, binary=False)
        assert found["Effective_ACs"] == total(ours, binary=True)
        assert found["Dense"] == sum(one.dense * one.effective_SN.numel() for one in ours.synapses.values())
        units = sum(one.units * len(one.active_SN) for one in ours.activity.values())
        active = sum(int(one.active_SN.sum()) for one in ours.activity.values())
        assert sparsity == pytest.approx(1 - active / units)
    none, every = zero_weights(model)
    assert ConnectionSparsity()(theirs) == round(none / every, 4)
    assert (none > 0) == zeros
    assert Footprint()(theirs) == footprint_bytes(model)
    assert ParameterCount()(theirs) == sum(one.numel() for one in model.parameters())


def test_as_spikingjelly_counts() -> None:
    """Its MACs do not skip zeros or padding; its synaptic operations are those of spikes."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

    model, x = small(), networks.pictures(2)
    macs, synops = MACCounter(extra_ignore_modules=[nn.BatchNorm2d]), SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([macs, synops]):
        model(x)
    ours = count(model, x)
    assert synops.get_total() == total(ours, binary=True)
    assert macs.get_total() == sum(one.padded * int((~one.binary_SN).sum()) for one in ours.synapses.values())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (nn.Conv1d(2, 3, 3, stride=2), (2, 9)),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 7)),
        (nn.Conv2d(2, 3, 3, padding=2, dilation=2, padding_mode="circular"), (2, 6, 6)),
        (nn.Conv3d(1, 2, 2), (1, 3, 3, 4)),
    ],
)
def test_fan_out_of_every_kind_of_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """One input at a time: so many outputs change as there are weights that it meets."""
    with torch.no_grad():
        layer.weight.copy_(torch.rand_like(layer.weight) + 0.5)
        layer.weight.flatten()[::3] = 0
        one_hot = torch.eye(int(torch.tensor(shape).prod())).view(-1, *shape)
        layer.bias = None
        # A value met twice by one output (circular padding) counts twice, so weights are ones here.
        layer.weight.copy_((layer.weight != 0).float())
        expected = layer(one_hot).flatten(1).sum(1).view(shape)
    assert torch.equal(fan_out(layer, shape).float(), expected)


def test_what_is_binary_is_seen_for_each_image() -> None:
    """Spikes, signed spikes, silence and counts; the last needs multiplications."""
    net = nn.Linear(3, 2)
    x = torch.tensor([[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    with counting(net, {}, samples=4, time_first=False) as counts:
        net(x)
    found = counts.synapses[""]
    assert found.binary_SN.tolist() == [[True, True, True, False]]
    assert found.effective_SN.tolist() == [[4, 4, 0, 4]]


def test_calls_one_step_at_a_time_are_steps() -> None:
    """Tokens, steps in the batch, steps as an axis and steps as calls give the same rows."""
    net = nn.Linear(3, 2)
    x = (torch.rand(4, 2, 5, 3, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    found = []
    for calls in (list(x), [x], [x.flatten(0, 1)]):
        with counting(net, {}, samples=2, time_first=True) as counts:
            for call in calls:
                net(call)
        assert counts.synapses[""].dense == 5 * 6
        found.append(counts.synapses[""].effective_SN)
    assert found[0].tolist() == (2 * x.sum((2, 3))).tolist()
    assert all(torch.equal(one, found[0]) for one in found)


def test_input_without_the_images_is_refused() -> None:
    with pytest.raises(GateError, match="called with"):
        by_step_and_sample(torch.zeros(5, 3), 1, samples=2, time_first=True, layer="fc")


def test_hooks_are_gone_afterwards() -> None:
    model = small()
    count(model, networks.pictures(1))
    assert not any(module._forward_hooks for module in model.modules())
