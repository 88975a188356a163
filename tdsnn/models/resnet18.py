"""Plain ResNet-18 with ReLU, one time step: the non-spiking baseline."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tdsnn.models._residual import ResNet18

__all__ = ["resnet18"]


def resnet18(
    *,
    width: int = 64,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> ResNet18:
    """ResNet-18 (He et al. 2016): 11,173,962 parameters at width 64 with 10 classes and the CIFAR stem.

    Args:
        width: channels of the first stage.
        stem: ``cifar`` or ``imagenet``.
        mean, std: input normalisation per channel, in units of [0, 1] pixels.
    """
    return ResNet18(
        architecture="resnet18",
        arguments={
            "width": width,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem": stem,
            "mean": list(mean),
            "std": list(std),
        },
        activation=nn.ReLU,
        width=width,
        timesteps=1,
        num_classes=num_classes,
        in_channels=in_channels,
        stem=stem,
        mean=mean,
        std=std,
    )
