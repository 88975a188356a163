"""Training images on their way into the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tdsnn.data._augment import WHOLE, Part, augment
from tdsnn.data._base import Split
from tdsnn.errors import UsageError
from tdsnn.runtime import send
from tdsnn.schema import Recipe
from tdsnn.training._draws import batches, generator


def prepare(
    images: Tensor,
    augmentation: Sequence[str],
    *,
    generator: torch.Generator,
    device: torch.device,
    part: Part = WHOLE,
) -> Tensor:
    """Augmented images (N, C, H, W) in [0, 1], channels last, on the device, from uint8 ones."""
    x = send(augment(images, augmentation, generator=generator, part=part), device)
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


class Batches:
    """The full batches of each epoch, in an order and with augmentations that the recipe's seed fixes.

    Args:
        split: images to learn from.
        processes: how many share each batch equally.

    Raises:
        UsageError: a batch that is larger than the split, or cannot be shared equally.
    """

    def __init__(self, split: Split, recipe: Recipe, *, processes: int, device: torch.device) -> None:
        self._split, self._recipe, self._device = split, recipe, device
        size, images = recipe.batch_size, len(split.labels)
        self.steps = images // size
        """Batches in one epoch."""
        if not self.steps:
            raise UsageError(
                f"A batch of {size} is more than the {images} training images.",
                hint=f"For example --set batch_size={min(64, images)}",
            )
        # With unequal shares the images of the smaller ones would count for more.
        if size % processes:
            raise UsageError(
                f"A batch of {size} images cannot be shared equally by {processes} processes.",
                hint=f"For example --set batch_size={processes * math.ceil(size / processes)}",
            )

    def plan(self, epoch: int) -> tuple[Tensor, ...]:
        """Rows of the split (N,) of each batch, in order."""
        size = self._recipe.batch_size
        return batches(self._recipe.seed, epoch, samples=len(self._split.labels), batch_size=size)

    def load(self, rows: Tensor, *, epoch: int, step: int, part: Part = WHOLE) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and targets (N,) of these rows, on the device.

        Args:
            epoch, step: of the batch; they fix its augmentation.
            part: of the batch that these rows are.
        """
        draws = generator(self._recipe.seed, "augment", epoch, step, 0)
        images = torch.from_numpy(self._split.images[rows.numpy()])
        x = prepare(images, self._recipe.augmentation, generator=draws, device=self._device, part=part)
        return x, send(torch.from_numpy(self._split.labels[rows.numpy()]), self._device)
