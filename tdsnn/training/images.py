"""Training images on their way into the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tdsnn.data._augment import WHOLE, Part, augment
from tdsnn.data._base import Split
from tdsnn.data._torchvision import MIXTURES, mix, require_torchvision
from tdsnn.errors import UsageError
from tdsnn.runtime import send
from tdsnn.schema import Recipe
from tdsnn.tasks._base import TASKS
from tdsnn.training._draws import batches, generator

DECODED = "resized_crop"
"""The augmentation that is made as a picture is decoded."""


def prepare(
    images: Tensor,
    augmentation: Sequence[str],
    *,
    generator: torch.Generator,
    device: torch.device,
    part: Part = WHOLE,
) -> Tensor:
    """Augmented images (N, C, H, W) in [0, 1], channels last, on the device, from uint8 ones."""
    names = [name for name in augmentation if name not in (*MIXTURES, DECODED)]
    x = send(augment(images, names, generator=generator, part=part), device)
    return x.float().div_(255).contiguous(memory_format=torch.channels_last)


class Batches:
    """The full batches of each epoch, in an order and with augmentations that the recipe's seed fixes.

    Args:
        split: images to learn from.
        processes: how many share each batch equally.

    Raises:
        UsageError: a batch that is larger than the split or cannot be shared equally, or an augmentation that
            is not for such images.
        MissingError: an augmentation needs a package that is not installed.
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
        passes = recipe.accumulate or 1
        if size % (processes * passes):
            whole = processes * passes * math.ceil(size / processes / passes)
            raise UsageError(
                f"{size // processes} images cannot be accumulated in {passes} equal passes.",
                hint=f"For example --set batch_size={whole}",
            )
        self._mixtures = [name for name in recipe.augmentation if name in MIXTURES]
        if self._mixtures and not TASKS.load(split.task).chooses_class:
            raise UsageError(
                f"The targets of {split.origin} are no classes, so they cannot be mixed.",
                hint="Leave mixup and cutmix out of the augmentation.",
            )
        if set(recipe.augmentation) & {*MIXTURES, DECODED, "randaugment"}:
            require_torchvision()
        self._require_decoding()

    def _require_decoding(self) -> None:
        if DECODED in self._recipe.augmentation:
            raise UsageError(
                f"'{DECODED}' is made where pictures are decoded; those of {self._split.origin} were before.",
                hint="Choose crop instead.",
            )

    def plan(self, epoch: int) -> tuple[Tensor, ...]:
        """Rows of the split (N,) of each batch, in order."""
        size = self._recipe.batch_size
        return batches(self._recipe.seed, epoch, samples=len(self._split.labels), batch_size=size)

    def load(self, rows: Tensor, *, epoch: int, step: int, part: Part = WHOLE) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] and targets (N,), or (N, K) of mixed ones, of these rows, on the
        device.

        Args:
            epoch, step: of the batch; they fix its augmentation.
            part: of the batch that these rows are; mixtures are of images of one part.
        """
        images = torch.from_numpy(self._split.images[rows.numpy()])
        labels = send(torch.from_numpy(self._split.labels[rows.numpy()]), self._device)
        return self._augmented(images, labels, epoch=epoch, step=step, part=part)

    def found(self) -> dict[str, float]:
        """What is to be logged of the latest batch."""
        return {}

    def remarks(self, means: Mapping[str, float]) -> dict[str, str]:
        """What people are told at the end of an epoch, of the means of what :meth:`found` gave."""
        return {}

    def close(self) -> None:
        """Let go of what was prepared for later batches."""

    def _augmented(
        self, images: Tensor, labels: Tensor, *, epoch: int, step: int, part: Part
    ) -> tuple[Tensor, Tensor]:
        seed, names = self._recipe.seed, self._recipe.augmentation
        draws = generator(seed, "augment", epoch, step, 0)
        x = prepare(images, names, generator=draws, device=self._device, part=part)
        if self._mixtures:
            drawn = generator(seed, "mix", epoch, step).initial_seed()
            classes = len(self._split.classes)
            x, labels = mix(x, labels, self._mixtures, classes=classes, seed=drawn)
        return x, labels
