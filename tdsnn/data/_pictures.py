"""Encoded pictures: three formats, and no more memory than their size is worth."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tdsnn.errors import IntegrityError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
"""Others reach decoders that are no part of Pillow: an EPS in a ``.jpg`` runs Ghostscript."""
LARGEST_SIDE = 4096
"""Pixels; of what comes in a few kilobytes the decoded picture may take gigabytes."""


def decode(
    source: bytes | Path,
    *,
    name: str,
    mode: str | None = None,
    hint: str = "",
    largest_side: int = LARGEST_SIDE,
) -> Image:
    """A decoded picture.

    Args:
        source: encoded, or a file.
        name: subject of the sentence of an error.
        mode: ``L`` (grey) or ``RGB``; None keeps grey pictures grey and turns all others into colours.
        largest_side: pixels.

    Raises:
        IntegrityError: none of :data:`FORMATS`, broken, or more than ``largest_side`` on a side.
    """
    from PIL import Image

    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        # Pillow's reader of WebP takes memory for the whole picture before it tells its size.
        _require_size(_webp_size(content), name, largest_side, hint)
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _require_size(picture.size, name, largest_side, hint)
            grey = picture.mode in ("1", "L", "I;16")
            return picture.convert(mode or ("L" if grey else "RGB"))
    # Pillow reports broken PNG chunks as SyntaxError.
    except (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError) as error:
        raise IntegrityError(f"{name} cannot be decoded: {error}.", hint=hint) from error


def _require_size(size: tuple[int, int], name: str, largest: int, hint: str) -> None:
    if max(size) > largest:
        raise IntegrityError(
            f"{name} has {size[0]} x {size[1]} pixels; at most {largest} a side are read.", hint=hint
        )


def _webp_size(content: bytes) -> tuple[int, int]:
    """Width and height that the header of a WebP states (RFC 9649); (0, 0) for other content."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return 0, 0
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(content[place : place + 2], "little") & 0x3FFF for place in (26, 28))
    return width, height
