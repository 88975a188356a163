"""Each gate lets a sound model pass and refuses the defect that it is there for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from toys import Linear, batch, images

from tdsnn.attacks._base import Attack, configure
from tdsnn.benchmark.gates import check_attack, check_model
from tdsnn.errors import GateError
from tdsnn.models._neurons import State
from tdsnn.models.sresnet18 import sresnet18


def _spiking() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sresnet18(width=4, timesteps=2, in_channels=1, mean=(0.5,), std=(0.5,))


def test_sound_models_pass_and_leave_their_measurements() -> None:
    for model, classes in ((Linear(), 3), (_spiking(), 10)):
        gates = check_model(model, images(9), num_classes=classes)
        assert {gate.name for gate in gates} >= {"bounds", "same batch twice", "half batches, logits"}
        assert all(gate.measured <= gate.limit for gate in gates)


def test_a_sound_attack_passes() -> None:
    model = Linear()
    x, y = batch(model, 8)
    gates = check_attack(configure("pgd"), model, x, y, eps=0.1, indices=range(8), seed=0)
    assert [gate.measured for gate in gates] == [0, 0]


def test_a_tiny_carried_state_is_refused() -> None:
    calls = itertools.count()
    model = Linear(twist=lambda _x, logits: logits + 1e-4 * next(calls))
    with pytest.raises(GateError, match=r"same batch twice.*logit, limit 0\.") as caught:
        check_model(model, images(8), num_classes=3)
    assert caught.value.exit_code == 5


def test_state_carried_by_spiking_neurons_is_refused() -> None:
    from spikingjelly.activation_based import neuron

    class Leaky(Linear):
        """SpikingJelly's neuron keeps its membrane potential until somebody resets it."""

        def __init__(self) -> None:
            super().__init__()
            self.lif = neuron.LIFNode()

        def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
            return super().step(x + self.lif(4 * x + 2), state)

    with pytest.raises(GateError, match="same batch twice"):
        check_model(Leaky(), images(8), num_classes=3)


@pytest.mark.parametrize(
    ("twist", "gate"),
    [
        (lambda _x, logits: logits - logits.mean(0), "half batches"),
        (
            lambda _x, logits: logits + torch.arange(len(logits))[:, None] * torch.tensor([1, 0, 0]),
            "permuted",
        ),
    ],
)
def test_images_that_influence_each_other_are_refused(twist, gate: str) -> None:
    with pytest.raises(GateError, match=gate):
        check_model(Linear(twist=twist), images(9), num_classes=3)


def test_rounding_between_batches_is_allowed() -> None:
    def rounding(_x: Tensor, logits: Tensor) -> Tensor:
        return logits * (1 + 1e-6 * len(logits))

    check_model(Linear(twist=rounding), images(9), num_classes=3)


@pytest.mark.parametrize(
    ("twist", "message"),
    [
        (lambda x, logits: logits / (x.flatten(1).amin(1, keepdim=True) < 0.5), "not finite"),
        (
            lambda x, logits: logits.masked_fill(x.flatten(1).amax(1, keepdim=True) == -0.5, torch.nan),
            "not finite",
        ),
        (lambda _x, logits: logits[:, :2], r"shape \(11, 2\), not \(11, 3\)"),
    ],
)
def test_logits_that_are_not_finite_over_the_whole_pixel_range_are_refused(twist, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_model(Linear(twist=twist), images(9), num_classes=3)


class _Shaky(Attack):
    """Draws from the global generator."""

    def run(self, model, x, y, *, eps, norm, task, generator) -> Tensor:
        return x + eps * torch.rand_like(x)


def test_an_attack_that_ignores_its_seed_is_refused() -> None:
    model = Linear()
    x, y = batch(model, 8)
    with pytest.raises(GateError, match="determinism"):
        check_attack(_Shaky(), model, x, y, eps=0.1, indices=range(8), seed=0)


def test_a_network_for_other_images_is_refused() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    grey = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    with pytest.raises(GateError, match=r"takes no images \(3, 8, 8\).*expected .* 1 channels"):
        check_model(grey, x, num_classes=2)
