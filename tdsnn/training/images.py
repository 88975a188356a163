"""Images on their way into a network that is trained, and how many of them it gets right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tdsnn.data._augment import augment
from tdsnn.data._base import Split
from tdsnn.models._base import Model
from tdsnn.runtime import deterministic

_EVALUATION_BATCH = 250


def prepare(
    images: Tensor, augmentation: Sequence[str], *, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Augmented images (N, C, H, W) in [0, 1], channels last, on the device, from uint8 ones."""
    x = augment(images, augmentation, generator=generator).to(device, non_blocking=True)
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: Model, split: Split, *, device: torch.device) -> float:
    """Fraction of a split's images classified correctly, in full precision; the model's mode is kept."""
    training = model.training
    model.eval()
    correct = 0
    with deterministic():
        for start in range(0, len(split.labels), _EVALUATION_BATCH):
            images, labels = split.take(slice(start, start + _EVALUATION_BATCH))
            x = images.to(device).contiguous(memory_format=torch.channels_last)
            correct += int((model(x).argmax(1) == labels.to(device)).sum())
    model.train(training)
    return correct / len(split.labels)
