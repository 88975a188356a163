"""Test images of one's own: a folder of images for each class, or two arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdsnn import paths
from tdsnn.data._base import DATASETS, Split, load_split
from tdsnn.errors import UsageError
from tdsnn.registry import suggest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_ARRAYS = "Images are uint8 (N, C, H, W) or (N, H, W), 0 to 255; labels whole numbers (N,) from 0 on."


def open_test_split(
    data: str | os.PathLike[str] | tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> tuple[str, Split]:
    """Name and test images of a dataset.

    Args:
        data: a registered name; a folder with one folder of images (PNG, JPEG, WebP, all of one size) for
            each class; ``IMAGES.npy,LABELS.npy``; or the two arrays. Images of folders are put into an order
            that depends on their content alone, so that the first n are of all classes; arrays keep theirs.

    Raises:
        UsageError: no such name or folder, or arrays of another form.
        IntegrityError: a file that cannot be read.
        MissingError: as :func:`tdsnn.data.load_split`.
    """
    if isinstance(data, tuple):
        return "two arrays", _of_arrays(*data, origin="memory")
    text = os.fspath(data)
    if text in DATASETS.names():
        return text, load_split(text, "test")
    if text.count(",") == 1:
        images, labels = (_array(paths.expanded(part.strip())) for part in text.split(","))
        return text, _of_arrays(images, labels, origin=text)
    folder = paths.expanded(text)
    if folder.is_dir():
        return folder.name, _of_folder(folder)
    error = suggest(text, DATASETS.names(), kind="dataset", command="tdsnn-zoo data list")
    error.hint += "; or name a folder with one folder of images for each class, or IMAGES.npy,LABELS.npy"
    raise error


def _array(path: Path) -> NDArray[Any]:
    from tdsnn.data._arrays import open_array

    try:
        return open_array(path)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no file {path}.", hint="Two arrays: --data IMAGES.npy,LABELS.npy"
        ) from error


def _of_arrays(images: NDArray[Any], labels: NDArray[Any], *, origin: str) -> Split:
    import numpy as np

    from tdsnn.data._cache import canonical_order

    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UsageError(f"The images are {images.dtype} of shape {images.shape}.", hint=_ARRAYS)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UsageError(
            f"The labels are {labels.dtype} of shape {labels.shape} for {len(images)} images.", hint=_ARRAYS
        )
    if labels.min() < 0:
        raise UsageError(f"A label is {labels.min()}.", hint=_ARRAYS)
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    pixels, labels = images[:, None] if images.ndim == 3 else images, labels.astype(np.int64)
    _, digest = canonical_order(pixels, labels)
    return Split(
        images=pixels,
        labels=labels,
        classes=classes,
        digest=digest,
        pinned=False,
        origin=origin,
        canonical=False,
    )


def _of_folder(folder: Path) -> Split:
    import numpy as np

    from tdsnn.data._cache import canonical_order

    classes = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    files = [
        (file, number)
        for number, name in enumerate(classes)
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UsageError(
            f"{folder} has no images.",
            hint=f"It needs one folder for each class, with images ({', '.join(SUFFIXES)}) in it.",
        )
    pictures = [_decoded(file) for file, _ in files]
    shapes = {picture.shape: file for picture, (file, _) in zip(pictures, files, strict=True)}
    if len(shapes) > 1:
        found = " and ".join(
            f"{file} is {'x'.join(map(str, shape))}" for shape, file in list(shapes.items())[:2]
        )
        raise UsageError(f"The images are of several shapes (C x H x W): {found}.", hint="Make them equal.")
    images, labels = np.stack(pictures), np.array([number for _, number in files], dtype=np.int64)
    order, digest = canonical_order(images, labels)
    return Split(
        images=images[order],
        labels=labels[order],
        classes=tuple(classes),
        digest=digest,
        pinned=False,
        origin=str(folder),
    )


def _decoded(file: Path) -> NDArray[np.uint8]:
    import numpy as np

    from tdsnn.data._pictures import decode

    pixels = np.asarray(decode(file, name=str(file)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
