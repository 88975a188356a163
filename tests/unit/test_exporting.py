"""Exported programs: spikes computed by hand, folded normalisations, and what cannot be expressed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import exports
import pytest
import torch
from exports import FIRST, LOGITS, PIXEL, SECOND, ByHand, by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NEURONS, network, pictures
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.exporting.formats import FORMATS
from tdsnn.exporting.program import Program, trace
from tdsnn.kernels.lif import LIFConfig, lif
from tdsnn.kernels.surrogates import read_surrogates
from tdsnn.models import LIF, Model, State

pytest.importorskip("onnx")
ATEN = torch.ops.aten


def run(program: Program, images: Tensor) -> Tensor:
    return program.exported.module()(images)


def operators(program: Program) -> list[object]:
    return [node.target for node in program.exported.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("format", FORMATS.names())
@pytest.mark.parametrize("timesteps", [5, 3])
def test_spikes_and_logits_are_those_computed_by_hand(format: str, timesteps: int, tmp_path: Path) -> None:
    exported = exports.write(FORMATS.load(format), by_hand(), tmp_path / "net", timesteps=timesteps)
    spikes = exported.spikes(PIXEL)
    assert list(spikes) == ["first", "second"]
    assert spikes["first"].flatten().tolist() == FIRST[:timesteps]
    assert spikes["second"].flatten().tolist() == SECOND[:timesteps]
    torch.testing.assert_close(exported.logits(PIXEL), torch.tensor([LOGITS[timesteps]]))


def test_a_soft_reset_keeps_what_is_above_the_threshold() -> None:
    """Current 0.9: potentials 0.9, 1.35, 0.175 + 0.9, 0.9375, ...; a reset to 0 fires at steps 2, 4, 6, 8."""
    model = by_hand(soft=True, timesteps=8)
    with torch.no_grad():
        model.conv2.weight.zero_()
        model.conv2.bias.fill_(0.9)
    found = run(trace(model, (1, 1, 1), 8), PIXEL)
    expected, _ = lif(torch.full((8, 1), 0.9), LIFConfig(decay_input=False, v_reset=None))
    assert expected.flatten().tolist() == [0, 1, 1, 0, 1, 1, 0, 1]
    torch.testing.assert_close(found[0, 1], -expected.mean())


def test_a_normalisation_becomes_part_of_the_convolution() -> None:
    program = trace(by_hand(), (1, 1, 1), 3)
    assert ATEN.batch_norm.default not in operators(program)
    state = program.exported.state_dict
    assert state["network.conv1.weight"].item() == pytest.approx(1.0)
    assert state["network.norm.bias"].item() == pytest.approx(-0.2)
    assert not any("running" in name or name.endswith("norm.weight") for name in state)
    assert not any("running" in name for name in program.exported.constants)


class Shared(Model):
    """A convolution that both a normalisation and the readout hear."""

    def __init__(self, *, heard: bool) -> None:
        super().__init__(
            architecture="shared",
            arguments={"heard": heard},
            timesteps=1,
            num_classes=2,
            in_channels=2,
            mean=(0.4, 0.5),
            std=(0.2, 0.3),
            sheet_specs=(),
        )
        self.heard = heard
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)
        self.other = nn.BatchNorm2d(2)

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        found = self.conv(encoded)
        out = self.norm(found) * self.other(encoded)[..., 1:-1, 1:-1]
        return (out + found if self.heard else out).mean((2, 3)), dict(state)


@pytest.mark.parametrize("heard", [False, True])
def test_only_a_convolution_that_nothing_else_hears_is_folded(heard: bool) -> None:
    torch.manual_seed(0)
    model = Shared(heard=heard)
    for norm in (model.norm, model.other):
        for tensor in (norm.weight, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2.0)
        for tensor in (norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
    program, x = trace(model.eval(), (2, 16, 16), 1), pictures(4)
    assert operators(program).count(ATEN.batch_norm.default) == 1 + heard
    with torch.no_grad():
        torch.testing.assert_close(run(program, x), model(x))


@settings(max_examples=4, deadline=None)
@given(neuron=NEURONS, timesteps=st.integers(1, 3), images=st.integers(1, 4))
def test_a_program_has_the_spikes_of_its_neurons(neuron: LIFConfig, timesteps: int, images: int) -> None:
    """Every kind of neuron, any T, any number of images."""
    model = by_hand()
    model.first, model.second = LIF(neuron), LIF(neuron)
    program = trace(model, (1, 1, 1), timesteps)
    assert {layer: len(steps) for layer, steps in program.spikes.items()} == {
        "first": timesteps,
        "second": timesteps,
    }
    x = torch.rand(images, 1, 1, 1, generator=torch.Generator().manual_seed(images))
    with torch.no_grad():
        torch.testing.assert_close(run(program, x), model(x, timesteps))


def test_the_model_stays_as_it_is() -> None:
    model = network("sresnet18", width=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace(model, (2, 16, 16), 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(type(layer) is LIF for layer in model.neurons)


def test_no_operator_is_of_this_project() -> None:
    program = trace(network("sresnet18", width=4, compiled=False), (2, 16, 16), 2)
    assert {str(operator).split(".")[0] for operator in operators(program)} <= {
        "aten",
        "<built-in function getitem>",
    }


class Deciding(ByHand):
    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        if encoded.sum() > 0:
            return super().step(encoded, state)
        return super().step(-encoded, state)


def test_a_network_that_decides_by_values_is_refused() -> None:
    with pytest.raises(UsageError, match="not a fixed sequence of operators") as caught:
        trace(Deciding().eval(), (1, 1, 1), 1)
    assert "\n" not in caught.value.message
    assert "values of tensors" in caught.value.hint


def test_spikes_that_an_attack_replaced_are_refused() -> None:
    (surrogate,) = read_surrogates("relu")
    assert surrogate is not None
    with pytest.raises(UsageError, match="layer 'first' were replaced"):
        trace(by_hand().with_surrogate(surrogate), (1, 1, 1), 1)
