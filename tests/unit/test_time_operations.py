"""The metric of operations: what it makes of counts, and what it cannot say."""

from __future__ import annotations

import math

import networks
import pytest
import torch
import toys
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import tdsnn
from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.temporal import Measurement, Subject
from tdsnn.temporal.operations import AC_PJ, BYTE_PJ, MAC_PJ, Operations

IMAGES = 5


def shown(images: Tensor) -> Split:
    """Images as a split, with labels that no metric of operations looks at."""
    return Split(
        images=(255 * images).round().to(torch.uint8).numpy(),
        labels=torch.zeros(len(images), dtype=torch.int64).numpy(),
        classes=tuple("abcdefghij"),
        digest="0" * 64,
        pinned=False,
        origin="drawn",
    )


def measured(model: nn.Module, images: Tensor, *, batch_size: int = 3) -> Measurement:
    return Operations().measure(
        Subject(model=model, split=shown(images), n=len(images), batch_size=batch_size)
    )


@pytest.fixture(scope="module")
def found() -> Measurement:
    return measured(networks.network("sresnet18", width=2, timesteps=3), networks.pictures(IMAGES))


def values(found: Measurement) -> dict[str, float]:
    return {key: figure.value for key, figure in found.figures.items()}


def test_parts_add_up(found: Measurement) -> None:
    of = values(found)
    layers = sum(value for key, value in of.items() if key.startswith("operations@"))
    assert of["effective ACs"] + of["effective MACs"] == pytest.approx(layers)
    by_step = sum(of[f"effective ACs,T={step}"] for step in (1, 2, 3))
    assert by_step == pytest.approx(of["effective ACs"])
    assert found.curves["effective ACs"].y == tuple(of[f"effective ACs,T={step}"] for step in (1, 2, 3))
    assert of["activation sparsity"] + of["firing rate"] == pytest.approx(1.0)
    assert 0 < of["firing rate"] < 1


def test_the_image_is_read_once_or_at_each_step(found: Measurement) -> None:
    """3x3 weights, 2 channels in, 2 out, on 16x16 pixels with padding, of which nothing is multiplied."""
    of = values(found)
    assert of["image MACs"] == 2 * 2 * (3 * 16 - 2) ** 2
    assert of["image MACs repeated"] == 3 * of["image MACs"]
    read_out = 16 * 10 * 3
    assert of["dense MACs"] == pytest.approx(of["image MACs"] + read_out, rel=0.01)


def test_energy_is_that_of_its_model(found: Measurement) -> None:
    of = values(found)
    assert of["MAC energy"] == pytest.approx(1e-6 * MAC_PJ * of["dense MACs"])
    assert of["AC energy"] == pytest.approx(1e-6 * AC_PJ * of["effective ACs"])
    moved = 4 * (of["effective ACs"] + of["effective MACs"]) + 2 * 3 * of["state"]
    assert of["memory energy"] == pytest.approx(1e-6 * BYTE_PJ * moved)
    assert "Horowitz 2014" in str(found.conditions["energy model"])
    assert "nothing was measured" in str(found.conditions["energy model"])


def test_state_is_a_potential_for_each_neuron(found: Measurement) -> None:
    sides = {2: 16, 4: 8, 8: 4, 16: 2}
    neurons = 2 * 16 * 16 + sum(4 * channels * side * side for channels, side in sides.items())
    assert found.figures["state"].value == 4 * neurons


def test_no_number_depends_on_the_batch(found: Measurement) -> None:
    model = networks.network("sresnet18", width=2, timesteps=3)
    for batch_size in (1, IMAGES):
        other = measured(model, networks.pictures(IMAGES), batch_size=batch_size)
        assert values(other) == pytest.approx(values(found))
        for key, samples in found.samples.items():
            assert other.samples[key] == pytest.approx(samples)


def test_samples_are_of_single_images(found: Measurement) -> None:
    model = networks.network("sresnet18", width=2, timesteps=3)
    alone = measured(model, networks.pictures(IMAGES)[3:4])
    for key, samples in found.samples.items():
        assert alone.samples[key][0] == pytest.approx(samples[3]), key


def test_without_spikes_there_is_nothing_about_them() -> None:
    found = measured(networks.network("resnet18", width=2), networks.pictures(2))
    spiking = {"effective ACs", "dense ACs", "AC energy", "firing rate", "state"}
    assert set(found.missing) == spiking
    assert not any(key.split("@")[0].split(",")[0] in spiking for key in found.figures)
    assert found.figures["effective MACs"].value > 0
    assert 0 < found.figures["activation sparsity"].value < 1


def test_a_network_of_products_outside_of_layers_is_refused() -> None:
    with pytest.raises(GateError, match="no linear layer"):
        measured(toys.Linear().eval(), toys.images(2))


@pytest.mark.parametrize("mode", ["sequence", "loop"])
def test_a_network_of_another_library(mode: str) -> None:
    """Steps in one call or one after the other, and a potential of 4 bytes for each of its neurons."""
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Flatten(), layer.Linear(16, 6), neuron.LIFNode(v_threshold=0.1), layer.Linear(6, 3)
    )
    functional.set_step_mode(net, "m" if mode == "sequence" else "s")
    found = measured(tdsnn.adapt(net, time=mode, timesteps=4), toys.images(5))
    of = values(found)
    assert of["image MACs"] == 4 * 16 * 6, "it computes them at each step"
    assert of["image MACs repeated"] == of["image MACs"]
    assert of["dense ACs"] == 4 * 6 * 3
    assert of["effective ACs"] == pytest.approx(of["firing rate"] * of["dense ACs"])
    assert of["state"] == 4 * 6
    assert of["effective ACs"] > 0
    assert all(math.isfinite(value) for value in of.values())
