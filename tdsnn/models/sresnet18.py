"""Spiking ResNet-18: LIF neurons after every normalisation and after the addition of each block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._neurons import LIF
from tdsnn.models._residual import ResNet18

__all__ = ["sresnet18"]


def sresnet18(
    *,
    width: int = 64,
    timesteps: int = 4,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    neuron: Annotated[Mapping[str, Any] | None, LIFConfig] = None,
) -> ResNet18:
    """Wiring of SpikingJelly's ``spiking_resnet18``: 11,173,962 parameters at width 64 with 10 classes.

    Args:
        width: channels of the first stage.
        timesteps: T; the image is shown at every step.
        stem: ``cifar`` or ``imagenet``.
        mean, std: input normalisation per channel, in units of [0, 1] pixels.
        neuron: fields of :class:`~tdsnn.kernels.lif.LIFConfig`; the rest keep their defaults.
    """
    config = LIFConfig(**(neuron or {}))
    arguments = {
        "width": width,
        "timesteps": timesteps,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "stem": stem,
        "mean": list(mean),
        "std": list(std),
        "neuron": dict(neuron or {}),
    }
    return ResNet18(
        architecture="sresnet18",
        arguments=arguments,
        activation=lambda: LIF(config),
        width=width,
        timesteps=timesteps,
        num_classes=num_classes,
        in_channels=in_channels,
        stem=stem,
        mean=mean,
        std=std,
    )
