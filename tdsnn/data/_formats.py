"""Readers of the file formats that sources use: Parquet with encoded images, and gzipped IDX."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdsnn.data._pictures import decode
from tdsnn.errors import IntegrityError
from tdsnn.progress import Progress

LARGEST_SPLIT = 2**34
"""Bytes of decoded pixels, 16 GiB; a few bytes of a header can state any number."""
_BATCH = 1000
_HINT = "Fetch the file again, or remove it so that another source is used."
_IDX_UINT8 = 0x08


def read_parquet(
    path: Path, *, image: str, label: str, shape: tuple[int, int, int], progress: Progress
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode a Parquet file whose column ``image`` holds structs with encoded ``bytes``.

    Args:
        shape: (C, H, W) of every image; C = 1 is decoded to grey, C = 3 to RGB.

    Returns:
        Images uint8 (N, C, H, W), 0..255, and labels int64 (N,).

    Raises:
        IntegrityError: not Parquet, a column is missing, or an image is broken or of another size.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            total = file.metadata.num_rows
            missing = {image, label} - set(file.schema_arrow.names)
            if missing:
                raise IntegrityError(f"{path} has no column {', '.join(sorted(missing))}.", hint=_HINT)
            _require_sane(total * math.prod(shape), path)
            if not pa.types.is_integer(file.schema_arrow.field(label).type):
                kind = file.schema_arrow.field(label).type
                raise IntegrityError(f"{path} has labels of type {kind}, not whole numbers.", hint=_HINT)
            images = np.empty((total, *shape), dtype=np.uint8)
            labels = np.empty(total, dtype=np.int64)
            start = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=[image, label]):
                stop = start + batch.num_rows
                if stop > total:
                    start = stop
                    break
                for row, cell in enumerate(batch.column(image).to_pylist(), start=start):
                    images[row] = _decode(cell, shape, path=path, row=row)
                labels[start:stop] = batch.column(label).to_numpy()
                progress(stop, total)
                start = stop
    except (pa.ArrowException, OSError, ValueError) as error:  # a name in it may be no UTF-8
        raise IntegrityError(f"{path} is not a readable Parquet file: {error}.", hint=_HINT) from error
    if start != total:
        raise IntegrityError(f"{path} says that it has {total:,} rows, and has another number.", hint=_HINT)
    return images, labels


def _decode(cell: object, shape: tuple[int, int, int], *, path: Path, row: int) -> NDArray[np.uint8]:
    channels, height, width = shape
    data = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(data, bytes):
        raise IntegrityError(f"Image {row} of {path} holds no encoded image.", hint=_HINT)
    # Grey stored as WebP decodes to equal R, G and B, which Pillow turns into that same grey.
    mode = "L" if channels == 1 else "RGB"
    pixels = np.asarray(decode(data, name=f"Image {row} of {path}", mode=mode, hint=_HINT))
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[0]}x{pixels.shape[1]}"
        raise IntegrityError(f"Image {row} of {path} is {found}, expected {height}x{width}.", hint=_HINT)
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def read_images(
    paths: Sequence[Path],
    *,
    classes: Sequence[str],
    shape: tuple[int, int, int],
    progress: Progress,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode files called ``CLASS-NUMBER.SUFFIX`` and reduce them to ``shape`` (Lanczos).

    Returns:
        Images uint8 (N, C, H, W), 0..255, and labels int64 (N,), index into ``classes``.

    Raises:
        IntegrityError: a file that is no image, or is smaller than ``shape``.
    """
    from PIL import Image

    channels, height, width = shape
    images = np.empty((len(paths), *shape), dtype=np.uint8)
    for index, path in enumerate(paths):
        plain = decode(path, name=str(path), mode="L" if channels == 1 else "RGB", hint=_HINT)
        if plain.width < width or plain.height < height:
            found = f"{plain.height}x{plain.width}"
            raise IntegrityError(f"{path} is {found}, expected at least {height}x{width}.", hint=_HINT)
        pixels = np.asarray(plain.resize((width, height), Image.Resampling.LANCZOS))
        images[index] = pixels.reshape(height, width, channels).transpose(2, 0, 1)
        progress(index + 1, len(paths))
    places = {name.casefold(): place for place, name in enumerate(classes)}
    labels = [places[path.stem.rpartition("-")[0].casefold()] for path in paths]
    return images, np.array(labels, dtype=np.int64)


def read_idx(
    images: Path, labels: Path, *, shape: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a pair of gzipped IDX files, as http://yann.lecun.com/exdb/mnist describes the format.

    Args:
        shape: (1, H, W) of every image.

    Returns:
        Images uint8 (N, 1, H, W), 0..255, and labels int64 (N,).

    Raises:
        IntegrityError: not gzip, not IDX, truncated, of another size, or unequal counts.
    """
    pixels = _read_idx_array(images)
    classes = _read_idx_array(labels)
    if pixels.shape[1:] != shape[1:]:
        raise IntegrityError(f"{images} has images of {pixels.shape[1:]}, expected {shape[1:]}.", hint=_HINT)
    if classes.shape != pixels.shape[:1]:
        raise IntegrityError(f"{labels} has {classes.size} labels for {len(pixels)} images.", hint=_HINT)
    return pixels.reshape(-1, *shape), classes.astype(np.int64)


def _read_idx_array(path: Path) -> NDArray[np.uint8]:
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            rank = head[3] if head[:3] == bytes([0, 0, _IDX_UINT8]) and len(head) > 3 else 0
            sizes = [int.from_bytes(file.read(4), "big") for _ in range(rank)]
            _require_sane(math.prod(sizes), path)
            # One byte more would show that there are more; all that follow may be a thousand times as many.
            content = file.read(math.prod(sizes) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"{path} is not a readable gzip file: {error}.", hint=_HINT) from error
    if not rank or math.prod(sizes) != len(content):
        raise IntegrityError(f"{path} is not an IDX file of bytes, or it is truncated.", hint=_HINT)
    return np.frombuffer(content, dtype=np.uint8).reshape(sizes)


def _require_sane(size: int, path: Path) -> None:
    if size > LARGEST_SPLIT:
        raise IntegrityError(
            f"{path} states {size:,} bytes of pixels; at most {LARGEST_SPLIT:,} are read.", hint=_HINT
        )
