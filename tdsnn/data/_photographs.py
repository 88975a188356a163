"""Photographs of any size on their way to the size that a network takes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tdsnn.data._pictures import decode
from tdsnn.data._shards import Encoded
from tdsnn.data._torchvision import random_box
from tdsnn.errors import IntegrityError

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 10_000
"""Pixels; ImageNet has a few photographs of more than 9,000."""
_CENTRE = 224 / 256
"""Share of the shorter side that is shown: of 256 pixels the middle 224."""
_MALFORMED = (SyntaxError, ValueError, TypeError, LookupError, OSError, struct.error)
"""What Pillow's reader of EXIF makes of bytes that are none."""


def opened(row: Encoded, *, name: str, channels: int) -> Image:
    """The photograph of a row, upright, grey (1 channel) or RGB (3).

    Args:
        name: of the row, for messages.

    Raises:
        IntegrityError: it holds none, or one that cannot be decoded.
    """
    if not row.picture:
        raise IntegrityError(f"{name} holds no encoded picture.")
    mode = "L" if channels == 1 else "RGB"
    return _upright(decode(row.picture, name=name, mode=mode, largest_side=LARGEST_SIDE))


def _upright(picture: Image) -> Image:
    """Turned as its EXIF says; one with malformed EXIF stays as it is stored."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except _MALFORMED:
        return picture


def middle(picture: Image, *, height: int, width: int) -> NDArray[np.uint8]:
    """The middle of a photograph as pixels (C, H, W), for evaluation.

    What is usual, to bring the shorter side to 256 pixels and to cut out the middle 224, is one bilinear
    resampling here: a strip of 1x4000 pixels would have a gigabyte in between.
    """
    scale = _CENTRE * min(picture.width / width, picture.height / height)
    left, top = (picture.width - scale * width) / 2, (picture.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return _resized(picture, box, height=height, width=width)


def random_part(picture: Image, *, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A random crop as pixels (C, H, W), for training; the seed fixes it."""
    return _resized(picture, random_box(picture, seed=seed), height=height, width=width)


def _resized(
    picture: Image, box: tuple[float, float, float, float], *, height: int, width: int
) -> NDArray[np.uint8]:
    from PIL.Image import Resampling

    pixels = np.asarray(picture.resize((width, height), Resampling.BILINEAR, box=box))
    return pixels.reshape(height, width, -1).transpose(2, 0, 1)
