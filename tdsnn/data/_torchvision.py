"""Torchvision's random transforms, each a function of a seed.

They draw from PyTorch's global generator for CPUs, also for images on a GPU, so it is set for each draw and
left as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdsnn.errors import MissingError
from tdsnn.paths import install_command

if TYPE_CHECKING:
    from PIL.Image import Image

MIXTURES = ("mixup", "cutmix")
_ALPHAS = {"mixup": 0.2, "cutmix": 1.0}
"""Of the Beta distribution: that of the papers for ImageNet (arXiv:1710.09412, arXiv:1905.04899)."""
_AREA, _RATIO = [0.08, 1.0], [3 / 4, 4 / 3]
"""Of random crops (Szegedy et al. 2015, arXiv:1409.4842, section 6)."""


def require_torchvision() -> None:
    """Find out whether torchvision is installed.

    Raises:
        MissingError: it is not.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"This augmentation needs the package '{error.name}', which is not installed.",
            hint=f"Install it: {install_command('train')}",
        ) from error


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed GPUs too.
        torch.default_generator.manual_seed(seed)
        yield


def random_box(picture: Image, *, seed: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in pixels, of a crop of 8 to 100 % of the area, at 3:4 to 4:3."""
    from torchvision.transforms import RandomResizedCrop

    with _drawing(seed):
        top, left, height, width = RandomResizedCrop.get_params(picture, _AREA, _RATIO)
    return left, top, left + width, top + height


def rand_augment(images: Tensor, seeds: Tensor) -> Tensor:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): two of 14 operations at magnitude 9 of 30.

    Args:
        images: uint8 (N, C, H, W), with one channel or three.
        seeds: (N,) of each image.
    """
    from torchvision.transforms.v2 import RandAugment

    transform = RandAugment()
    found = []
    for image, seed in zip(images, seeds.tolist(), strict=True):
        with _drawing(seed):
            found.append(transform(image))
    return torch.stack(found)


def mix(
    images: Tensor, labels: Tensor, names: Sequence[str], *, classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Each image mixed with its neighbour in the batch, by ``mixup`` or ``cutmix``, or by one of both.

    Args:
        images: float (N, C, H, W).
        labels: (N,), below ``classes``.
        names: of :data:`MIXTURES`, at least one; of two, the seed chooses one for the batch.

    Returns:
        Images like ``images``, and the share (N, K) of each class in them.
    """
    from torchvision.transforms import v2

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    with _drawing(seed):
        name = names[int(torch.randint(len(names), ()))]
        mixed, shares = kinds[name](alpha=_ALPHAS[name], num_classes=classes)(images, labels)
    return mixed, shares
