"""What is said about the gradient that attacks follow is what is known."""

from __future__ import annotations

import torch
from spikingjelly.activation_based import neuron
from torch import nn

from tdsnn.benchmark.gradients import gradient_of
from tdsnn.models.resnet18 import resnet18
from tdsnn.models.sresnet18 import sresnet18

SIZE = {"width": 4, "in_channels": 1, "mean": (0.5,), "std": (0.5,)}


def test_own_spikes_have_the_surrogate_they_were_trained_with() -> None:
    found = gradient_of(sresnet18(timesteps=2, **SIZE))
    assert (found.surrogate, found.words) == ("atan, alpha 2", "the training surrogate")


def test_a_network_of_exact_layers_alone_has_an_exact_gradient() -> None:
    found = gradient_of(resnet18(**SIZE))
    assert (found.surrogate, found.words) == (None, "the exact gradient")


def test_layers_from_elsewhere_may_hide_a_surrogate() -> None:
    model = resnet18(**SIZE)
    model.extra = nn.Sequential(nn.ReLU(), neuron.LIFNode())
    found = gradient_of(model)
    assert str(found.surrogate).startswith("not known for spikingjelly.")
    assert "LIFNode" in str(found.surrogate)
    assert "exact gradient" not in found.words

    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    spiking = sresnet18(timesteps=2, **SIZE)
    spiking.extra = Mine()
    found = gradient_of(spiking)
    assert str(found.surrogate).startswith("atan, alpha 2; not known for ")
    assert "Mine" in str(found.surrogate)
