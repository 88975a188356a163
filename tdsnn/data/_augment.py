"""Augmentation of whole batches of uint8 images, each sample with its own draws, without a loop over samples.

Crop, flip and cutout together take 1.6 ms for 128 images of 1x28x28 and 2.9 ms for 3x32x32, on one CPU core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.registry import suggest


class Part(NamedTuple):
    """Every ``size``-th image of a batch, from ``rank`` on."""

    rank: int = 0
    size: int = 1


class _Draws(NamedTuple):
    """For the images of a part, what they would get in the whole batch."""

    generator: torch.Generator
    part: Part

    def integers(self, low: int, high: int, count: int, device: torch.device) -> Tensor:
        """(count,) from ``low`` to ``high - 1``."""
        of_all = (count * self.part.size,)
        drawn = torch.randint(low, high, of_all, generator=self.generator, device=self.generator.device)
        return drawn[self.part.rank :: self.part.size].to(device)


WHOLE = Part()


def augment(
    images: Tensor, names: Sequence[str], *, generator: torch.Generator, part: Part = WHOLE
) -> Tensor:
    """Apply augmentations to a batch, in the order of their names.

    - ``crop``: shift by up to ``pad`` pixels each way, the border filled by reflection without repeating the
      edge; ``pad`` is 4 for 32 pixels (an eighth of the side from there on) and 2 for 28 (a fourteenth below,
      at least 1), because Fashion-MNIST's objects fill the frame. Every shift is equally likely.
    - ``flip``: mirror left and right with probability 1/2.
    - ``cutout``: set a square of a quarter of the side (8 pixels of 32) to 0, its centre anywhere in the
      image, the part outside cut off (DeVries and Taylor 2017, arXiv:1708.04552).
    - ``randaugment``: two operations of torchvision's, drawn for each image.

    Args:
        images: uint8 (N, C, H, W), 0..255; not modified.
        names: any of the above; an empty sequence returns ``images`` itself.
        generator: source of all draws; the same state gives the same result.
        part: of an equally shared batch, which images these are; they look as in the whole batch.

    Returns:
        Tensor like ``images``.

    Raises:
        UsageError: an unknown name, or images that are not uint8 (N, C, H, W).
    """
    _check_names(names)
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} with shape {tuple(images.shape)}"
        raise UsageError(f"Augmentation needs uint8 images of shape (N, C, H, W), not {found}.")
    for name in names:
        images = _AUGMENTATIONS[name](images, _Draws(generator, part))
    return images


def crop_padding(side: int) -> int:
    """Largest shift of ``crop`` in pixels for an image side of ``side`` pixels."""
    return min(side - 1, max(1, side // 8 if side >= 32 else side // 14))


def cutout_size(side: int) -> int:
    """Side of the square of ``cutout`` in pixels for an image side of ``side`` pixels."""
    return max(1, side // 4)


def _crop(images: Tensor, draws: _Draws) -> Tensor:
    count, channels, height, width = images.shape
    rows = _shifted(height, count, draws, images.device)
    columns = _shifted(width, count, draws, images.device)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    # One gather over flat pixels is three times faster than indexing with four broadcast tensors.
    return images.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(images)


def _shifted(side: int, count: int, draws: _Draws, device: torch.device) -> Tensor:
    """Source index (N, side) of every row or column after a random shift with reflection at the border."""
    pad = crop_padding(side)
    shift = draws.integers(-pad, pad + 1, count, device)
    index = (shift[:, None] + torch.arange(side, device=device)).abs()
    last = side - 1
    return last - (last - index).abs()


def _flip(images: Tensor, draws: _Draws) -> Tensor:
    chosen = draws.integers(0, 2, len(images), images.device).nonzero()[:, 0]
    return images.index_copy(0, chosen, images[chosen].flip(3))


def _cutout(images: Tensor, draws: _Draws) -> Tensor:
    rows = _covered(images.shape[2], len(images), draws, images.device)
    columns = _covered(images.shape[3], len(images), draws, images.device)
    # On uint8 a product is ten times faster than masked_fill.
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]


def _randaugment(images: Tensor, draws: _Draws) -> Tensor:
    from tdsnn.data._torchvision import rand_augment

    # On the CPU, wherever the images are: that is where the seeds are used.
    return rand_augment(images, draws.integers(0, 2**31, len(images), torch.device("cpu")))


def _covered(side: int, count: int, draws: _Draws, device: torch.device) -> Tensor:
    """Which rows or columns (N, side), bool, the square of each sample covers."""
    size = cutout_size(side)
    start = draws.integers(0, side, count, device)[:, None] - size // 2
    position = torch.arange(side, device=device)
    return (position >= start) & (position < start + size)


def _check_names(names: Sequence[str]) -> None:
    """Refuse augmentations that are not known.

    Raises:
        UsageError: an unknown name.
    """
    for name in names:
        if name not in _AUGMENTATIONS:
            raise suggest(name, sorted(_AUGMENTATIONS), kind="augmentation")


_AUGMENTATIONS: dict[str, Callable[[Tensor, _Draws], Tensor]] = {
    "crop": _crop,
    "flip": _flip,
    "cutout": _cutout,
    "randaugment": _randaugment,
}
