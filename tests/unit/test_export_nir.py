"""Models as NIR graphs: nodes, edges, the neurons' equations, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
import torch
from exports import PIXEL, ByHand, by_hand
from networks import network, pictures
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.exporting.formats import FORMATS
from tdsnn.exporting.formats._nir_graph import nir_graph
from tdsnn.exporting.program import trace
from tdsnn.exporting.verification import Agreement
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models import LIF, Model, State

nir = pytest.importorskip("nir")


def graph(model: Model, shape: tuple[int, int, int] = (1, 1, 1)) -> Any:
    return nir_graph(trace(model, shape, 1))


def test_the_graph_is_the_chain_of_layers() -> None:
    found = graph(by_hand())
    kinds = {name: type(node).__name__ for name, node in found.nodes.items()}
    assert kinds == {
        "input": "Input",
        "normalisation": "Conv2d",
        "conv1": "Conv2d",
        "first": "LIF",
        "conv2": "Conv2d",
        "second": "LIF",
        "mean": "AvgPool2d",
        "mean_flat": "Flatten",
        "readout": "Affine",
        "output": "Output",
    }
    assert found.edges == list(zip(list(kinds), list(kinds)[1:], strict=False))
    assert found.nodes["normalisation"].weight.item() == pytest.approx(1 / 0.5)
    assert found.nodes["normalisation"].bias.item() == pytest.approx(-0.2 / 0.5)
    assert found.nodes["conv1"].weight.item() == pytest.approx(0.5 * 2.0)
    assert found.nodes["conv1"].bias.item() == pytest.approx(-0.1 * 2.0)


def test_a_residual_sum_is_two_edges_into_the_neurons() -> None:
    found = graph(network("sresnet18", width=4), (2, 16, 16))
    into = {
        name: sorted(source for source, target in found.edges if target == name)
        for name in ("layer1_0_act2", "layer2_0_act2")
    }
    assert into == {
        "layer1_0_act2": ["act1", "layer1_0_conv2"],
        "layer2_0_act2": ["layer2_0_conv2", "layer2_0_downsample_0"],
    }
    assert sum(isinstance(node, nir.LIF) for node in found.nodes.values()) == 17


def test_neurons_are_written_as_the_differential_equation_that_they_step_through() -> None:
    """tau of two steps of 0.1 ms, from rest at 0: thresholds count from the resting potential."""
    model = by_hand()
    model.first = LIF(LIFConfig(tau=2.0, v_threshold=1.0, v_reset=-0.5, decay_input=True))
    model.second = LIF(LIFConfig(tau=4.0, v_threshold=0.5, v_reset=0.0, decay_input=False))
    found = graph(model)
    first, second = found.nodes["first"], found.nodes["second"]
    assert (first.tau.item(), second.tau.item()) == pytest.approx((2e-4, 4e-4))
    assert (first.r.item(), second.r.item()) == (1.0, 4.0)
    assert first.v_leak.item() == first.v_reset.item() == 0.0
    for neurons, threshold in ((first, 1.5), (second, 0.5)):
        assert neurons.v_threshold.item() < threshold
        assert np.nextafter(neurons.v_threshold, np.float32(np.inf)).item() == threshold
    assert found.metadata["dt"] == 1e-4


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize(("v_reset", "tau"), [(0.0, 4.0), (-0.2, 1.5)])
def test_every_kind_of_neuron_that_can_be_said_fires_as_here(
    tau: float, v_reset: float, decay_input: bool, tmp_path: Path
) -> None:
    neuron = LIFConfig(tau=tau, v_threshold=0.5, v_reset=v_reset, decay_input=decay_input)
    model = by_hand(timesteps=6)
    model.first, model.second = LIF(neuron), LIF(neuron)
    exported = exports.write(FORMATS.load("nir"), model, tmp_path / "net.nir")
    agreement = Agreement()
    x = torch.linspace(0.013, 0.987, 40).view(-1, 1, 1, 1)
    agreement.add(model, exported, x, timesteps=6)
    assert agreement.flipped_images == 0
    assert agreement.worst_difference < 1e-5
    assert 0.05 < exported.spikes(x)["first"].float().mean() < 0.95


def test_a_potential_at_the_threshold_fires(tmp_path: Path) -> None:
    model = by_hand()
    with torch.no_grad():
        model.conv2.weight.zero_()
        model.conv2.bias.fill_(1.0)
    exported = exports.write(FORMATS.load("nir"), model, tmp_path / "net.nir")
    assert exported.spikes(PIXEL)["second"].flatten().tolist() == [True] * 5
    with torch.no_grad():
        model.conv2.bias.fill_(float(np.nextafter(np.float32(0.5), np.float32(0))))
    exported = exports.write(FORMATS.load("nir"), model, tmp_path / "below.nir")
    assert not exported.spikes(PIXEL)["second"].any()


def test_a_graph_survives_the_file(tmp_path: Path) -> None:
    model = network("sresnet18", width=4)
    before = graph(model, (2, 16, 16))
    exports.write(FORMATS.load("nir"), model, tmp_path / "net.nir", shape=(2, 16, 16))
    after = nir.read(tmp_path / "net.nir")
    assert sorted(after.edges) == sorted(before.edges)
    assert after.nodes.keys() == before.nodes.keys()
    for name, node in before.nodes.items():
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(after.nodes[name], key))


@pytest.mark.parametrize("residual", [False, True])
def test_spikingjelly_reads_the_file_and_gives_the_same_logits(residual: bool, tmp_path: Path) -> None:
    """Another reader of NIR, with neurons of its own."""
    pytest.importorskip("nirtorch")
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    model, x = (network("sresnet18", width=4), pictures(3)) if residual else (by_hand(), PIXEL)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    exports.write(FORMATS.load("nir"), model, tmp_path / "net.nir", shape=shape)
    net, state, steps = import_from_nir(str(tmp_path / "net.nir")), None, []
    with torch.no_grad():
        for _ in range(model.timesteps):
            logits, state = net(x, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps), model.logits_over_time(x), rtol=0, atol=1e-6)


class Recurrent(ByHand):
    """Hears its own last spikes."""

    def init_state(self, encoded: Tensor) -> State:
        return {"last": encoded.new_zeros(encoded.shape)}

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        logits, after = super().step(encoded + 0.1 * state["last"], state)
        return logits, {**after, "last": encoded}


class Doubled(ByHand):
    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        return super().step(encoded + encoded, state)


class Again(ByHand):
    """The same neurons twice in a step."""

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        logits, after = super().step(encoded, state)
        return logits + self.first(encoded[None])[0].mean((2, 3)), after


class Pooled(ByHand):
    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(super().encode(x), 2)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (by_hand(soft=True), r"'LIF with reset by subtraction' of layer 'second'"),
        (Recurrent().eval(), "memory 'last'"),
        (Doubled().eval(), r"operator 'aten\.add\.Tensor'"),
        (Again().eval(), r"'LIF' of layer 'first'"),
        (Pooled().eval(), r"operator 'aten\.max_pool2d'"),
    ],
    ids=["soft reset", "memory", "the same edge twice", "neurons twice", "operator"],
)
def test_what_cannot_be_said_is_refused_by_name(model: Model, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        graph(model, (1, 4, 4))
    assert caught.value.hint == "ONNX can: --format onnx"


def test_another_size_of_image_and_a_large_one(tmp_path: Path) -> None:
    """Strides, paddings and shortcuts keep their meaning on images that are not square."""
    model, shape = network("sresnet18", width=4), (2, 20, 12)
    exported = exports.write(FORMATS.load("nir"), model, tmp_path / "net.nir", shape=shape)
    agreement = Agreement()
    agreement.add(model, exported, pictures(3).repeat(1, 1, 2, 1)[:, :, :20, :12], timesteps=4)
    assert agreement.flipped_images == 0
    assert agreement.worst_difference < 1e-5
