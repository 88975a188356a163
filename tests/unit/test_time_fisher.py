"""Fisher information against closed forms, and which weights belong to which connection."""

from __future__ import annotations

import math
from collections.abc import Mapping

import networks
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import tdsnn
from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State
from tdsnn.temporal import Measurement, Subject
from tdsnn.temporal._information import centroid, connections, information, trainable
from tdsnn.temporal.fisher import Fisher

CURRENT, GAIN = 0.8, 1.5


class OneNeuron(Model):
    """One pixel, one LIF neuron, two classes of which the second has logit 0: a derivative by hand."""

    def __init__(self) -> None:
        super().__init__(
            architecture="one-neuron",
            arguments={},
            timesteps=2,
            num_classes=2,
            in_channels=1,
            mean=[0.0],
            std=[1.0],
            sheet_specs=(),
        )
        self.weight = nn.Parameter(torch.tensor(2 * CURRENT))
        self.neuron = LIF(LIFConfig(decay_input=False))
        self.gain = nn.Parameter(torch.tensor(GAIN))

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        spikes = self.neuron(self.weight * x.flatten(1)[None], after, "neuron")[0]
        return torch.cat([self.gain * spikes, torch.zeros_like(spikes)], 1), after


def test_one_neuron_by_hand() -> None:
    """Potentials 0.8 and 0.8 / 2 + 0.8 = 1.2: no spike, then one."""
    model = OneNeuron().eval()
    pixel = 0.5
    with trainable(model) as named:
        found = information(
            model.logits_over_time,
            [[named["weight"]], [named["gain"]]],
            torch.full((1, 1, 1, 1), pixel),
            torch.tensor([0]),
        )

    def slope(above: float) -> float:
        return 1 / (1 + (math.pi * above) ** 2)

    def wrong(logit: float) -> float:
        return 1 / (1 + math.exp(logit))

    first = slope(CURRENT - 1) * pixel
    second = slope(1.5 * CURRENT - 1) * 1.5 * pixel
    to_weight = [
        (wrong(0.0) * GAIN * first) ** 2,
        (wrong(GAIN / 2) * GAIN * (first + second) / 2) ** 2,
    ]
    to_gain = [0.0, (wrong(GAIN / 2) / 2) ** 2]
    assert found[0].tolist() == [pytest.approx(to_weight, rel=1e-6), pytest.approx(to_gain, rel=1e-6)]


def test_a_linear_classifier_in_closed_form() -> None:
    """The gradient is (e_y - p) x^T, so its square is |e_y - p|^2 |x|^2, the same at every step."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 12, generator=generator).requires_grad_()
    x, y = torch.rand(5, 1, 3, 4, generator=generator), torch.tensor([0, 1, 2, 0, 1])

    def steps(images: Tensor) -> Tensor:
        return (images.flatten(1) @ weight.T).expand(3, -1, -1)

    found = information(steps, [[weight]], x, y)
    error = nn.functional.one_hot(y, 3) - (x.flatten(1) @ weight.T).softmax(1)
    expected = error.square().sum(1) * x.flatten(1).square().sum(1)
    assert found.shape == (5, 1, 3)
    assert torch.allclose(found[:, 0], expected.double()[:, None].expand(-1, 3), rtol=1e-5)


def test_images_are_squared_one_by_one() -> None:
    """Two images whose gradients cancel in the mean of a batch keep their information."""
    weight = torch.zeros(2, 1, requires_grad=True)
    x, y = torch.ones(2, 1, 1, 1), torch.tensor([0, 1])
    found = information(lambda images: (images.flatten(1) @ weight.T)[None], [[weight]], x, y)
    assert found[:, 0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_a_weight_that_takes_no_part_has_none() -> None:
    used, unused = torch.zeros(2, 1, requires_grad=True), torch.zeros(3, requires_grad=True)
    x, y = torch.ones(1, 1, 1, 1), torch.tensor([0])
    found = information(lambda images: (images.flatten(1) @ used.T)[None], [[used], [unused]], x, y)
    assert found[0, 1].tolist() == [0.0]
    assert found[0, 0].item() > 0


def test_all_weights_of_a_spiking_network_in_connections() -> None:
    """Groups add up to the whole, in one backward pass for each step of the mean of the first logits."""
    model = networks.network("sresnet18", width=2, timesteps=3)
    x, y = networks.pictures(2), torch.tensor([1, 4])
    with trainable(model) as named:
        groups = connections(list(named), model.sheet_layers)
        found = information(
            model.logits_over_time, [[named[name] for name in names] for names in groups.values()], x, y
        )
        for steps in (1, 3):
            loss = nn.functional.cross_entropy(model(x[:1], timesteps=steps), y[:1])
            whole = torch.autograd.grad(loss, list(named.values()))
            assert found[0, :, steps - 1].sum().item() == pytest.approx(
                sum(float(one.square().sum()) for one in whole), rel=1e-4
            )
    assert list(groups) == ["stem", *model.sheet_layers, "read-out"]
    assert groups["stem"] == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert groups["read-out"] == ("fc.weight", "fc.bias")
    assert sum(map(len, groups.values())) == len(dict(model.named_parameters()))


def test_areas_without_weights_of_their_own() -> None:
    """An area may be a layer of neurons: the weights before it are the connection into it."""
    names = ["a.weight", "b.weight", "c.weight", "out.weight", "d.weight"]
    assert connections(names, ["first", "b", "second"]) == {
        "stem": ("a.weight",),
        "b": ("b.weight",),
        "second": ("c.weight", "out.weight", "d.weight"),
    }
    assert connections(names) == {name.split(".")[0]: (name,) for name in names}


def test_flags_of_the_weights_stay_as_found() -> None:
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    with torch.no_grad(), trainable(net) as named:
        assert torch.is_grad_enabled()
        assert all(one.requires_grad for one in named.values())
    assert (net.weight.requires_grad, net.bias.requires_grad) == (True, False)


def test_centroid_by_hand() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 3.0]])
    assert centroid(rows).tolist() == [1, 2, 2.75]


def measured(model: nn.Module, n: int = 4, *, batch_size: int = 3) -> Measurement:
    """Of random pictures and labels."""
    split = Split(
        images=(255 * networks.pictures(n)).round().to(torch.uint8).numpy(),
        labels=(torch.arange(n) % 3).numpy(),
        classes=tuple("abcdefghij"),
        digest="0" * 64,
        pinned=False,
        origin="drawn",
    )
    return Fisher().measure(Subject(model=model, split=split, n=n, batch_size=batch_size))


def test_figures_of_a_network() -> None:
    model = networks.network("sresnet18", width=2, timesteps=3)
    found = measured(model)
    places = ["stem", *model.sheet_layers, "read-out"]
    assert list(found.figures) == [
        f"{quantity}@{place}"
        for quantity in ("centroid", "pooled centroid", "information")
        for place in places
    ]
    for place in places:
        mean, pooled = found.figures[f"centroid@{place}"], found.figures[f"pooled centroid@{place}"]
        assert mean.value == pytest.approx(found.samples[f"centroid@{place}"].mean())
        assert 1 <= pooled.low <= pooled.value <= pooled.high <= 3
        curve = found.curves[f"information@{place}"]
        assert curve.x == (1.0, 2.0, 3.0)
        assert curve.y[-1] == pytest.approx(found.figures[f"information@{place}"].value)
        weighed = sum(x * y for x, y in zip(curve.x, curve.y, strict=True)) / sum(curve.y)
        assert pooled.value == pytest.approx(weighed)
    assert found.conditions["surrogate"] == "atan, alpha 2"
    assert all(one.requires_grad for one in model.parameters())


def test_curves_begin_with_the_first_step() -> None:
    """What is known after one step is what the network answers if it runs one."""
    model = networks.network("sresnet18", width=2, timesteps=3)
    found = measured(model, 1)
    x = (255 * networks.pictures(1)).round() / 255
    loss = nn.functional.cross_entropy(model(x, timesteps=1), torch.tensor([0]))
    (to_weights,) = torch.autograd.grad(loss, model.fc.weight, retain_graph=True)
    (to_bias,) = torch.autograd.grad(loss, model.fc.bias)
    expected = float(to_weights.square().sum() + to_bias.square().sum())
    assert found.curves["information@read-out"].y[0] == pytest.approx(expected, rel=1e-4)


def test_figures_do_not_depend_on_the_batch() -> None:
    model = networks.network("sresnet18", width=2, timesteps=2)
    one, other = measured(model), measured(model, batch_size=1)
    for key, figure in one.figures.items():
        assert other.figures[key].value == pytest.approx(figure.value, rel=1e-4)


def test_one_step_is_neither_early_nor_late() -> None:
    found = measured(networks.network("resnet18", width=2))
    assert {key.split("@")[0] for key in found.figures} == {"information"}
    assert "one time step" in found.missing["centroid@stem"]
    assert "no layer" in str(found.conditions["surrogate"])


def test_images_without_information_have_no_centroid() -> None:
    """The gain learns from no spike, and black images give none."""
    model = OneNeuron().eval()
    split = Split(
        images=torch.zeros(3, 1, 1, 1, dtype=torch.uint8).numpy(),
        labels=torch.zeros(3, dtype=torch.int64).numpy(),
        classes=("a", "b"),
        digest="0" * 64,
        pinned=False,
        origin="black",
    )
    found = Fisher().measure(Subject(model=model, split=split, n=3))
    assert found.missing["centroid@gain"] == "3 of 3 images have no information about this connection."
    assert "centroid@gain" not in found.figures


def test_networks_that_cannot_be_asked_are_refused() -> None:
    inside = tdsnn.adapt(nn.Sequential(nn.Flatten(), nn.Linear(512, 3)))
    with pytest.raises(GateError, match="time axis inside"):
        measured(inside)
    stuck = tdsnn.adapt(Constant(), time="loop", timesteps=2)
    with pytest.raises(GateError, match="no derivative"):
        measured(stuck)
    with pytest.raises(GateError, match="no weights"):
        measured(tdsnn.adapt(nn.Flatten(), time="loop", timesteps=2))


def test_a_network_of_another_library() -> None:
    """By its parts, through its own surrogate."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(512, 5), neuron.LIFNode(), nn.Linear(5, 3))
    found = measured(tdsnn.adapt(net, time="loop", timesteps=3))
    assert [key for key in found.figures if key.startswith("centroid")] == ["centroid@1", "centroid@3"]
    assert "igmoid" in str(found.conditions["surrogate"])


class Constant(nn.Module):
    """Answers that no weight changes by little."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight > 0).float().expand(len(x), -1)
