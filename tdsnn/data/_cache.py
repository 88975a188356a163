"""Decoded splits on disk: two memory-mapped arrays and a small record for each.

Rows are kept in *canonical order*, sorted by the sha256 of each sample's shape, pixels and label, so that
"the first n test images" are the same images whatever mirror they came from, in whatever order and encoding.
The digest of a split is the sha256 of those sorted sample hashes, so it too depends on content alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tdsnn.errors import IntegrityError, MissingError, TdsnnError
from tdsnn.files import atomic, write_atomic


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was written, kept beside the arrays; written last, so its presence means that they are whole."""

    digest: str
    shape: tuple[int, int, int, int]
    """(N, C, H, W)."""
    images_bytes: int
    labels_bytes: int
    origin: str
    """Where the samples were read from."""


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A split opened from the cache; the arrays are read-only and mapped from disk."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    record: Record
    path: Path
    """File of the images."""


def canonical_order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], str]:
    """Order of the rows that depends on content alone, and the digest of the split.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).

    Returns:
        Indices (N,) that sort the rows, and 64 hex digits.
    """
    shape = "x".join(map(str, images.shape[1:])).encode()
    encoded_labels = np.ascontiguousarray(labels, dtype="<i8")
    keys = []
    for image, label in zip(images, encoded_labels, strict=True):
        sample = hashlib.sha256(shape)
        sample.update(np.ascontiguousarray(image).data)
        sample.update(label.tobytes())
        keys.append(sample.digest())
    order = sorted(range(len(keys)), key=keys.__getitem__)
    digest = hashlib.sha256(b"".join(keys[index] for index in order)).hexdigest()
    return np.array(order, dtype=np.intp), digest


def write(
    folder: Path,
    split: str,
    *,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    digest: str,
    origin: str,
) -> None:
    """Store a split whose rows are already in canonical order.

    Every file is replaced in one step, the record last; two processes that build the same split
    write the same bytes, so either may win.

    Raises:
        TdsnnError: the disk is full or the folder cannot be written.
    """
    images_path, labels_path, record_path = _paths(folder, split, digest)
    try:
        _write_array(images_path, images)
        _write_array(labels_path, labels)
        record = Record(
            digest=digest,
            shape=images.shape,
            images_bytes=images_path.stat().st_size,
            labels_bytes=labels_path.stat().st_size,
            origin=origin,
        )
        write_atomic(record_path, (json.dumps(asdict(record), indent=2) + "\n").encode())
    except TdsnnError as error:
        megabytes = (images.nbytes + labels.nbytes) // 10**6 + 1
        raise TdsnnError(
            error.message, hint=f"Free {megabytes} MB there, or set TDSNN_CACHE to another folder."
        ) from error


def read(folder: Path, split: str, *, digest: str | None) -> Cached:
    """Open a stored split after checking sizes, shape and recorded digest, not yet its content.

    Args:
        digest: the pinned digest; without one, whatever was stored for the split is opened.

    Raises:
        MissingError: nothing is stored.
        IntegrityError: what is stored is damaged.
    """
    if digest is None:
        stored = sorted(folder.glob(f"{split}-*.json"))
        prefix = stored[0].stem.removeprefix(f"{split}-") if stored else ""
    else:
        prefix = digest
    images_path, labels_path, record_path = _paths(folder, split, prefix)
    if not prefix or not record_path.is_file():
        raise MissingError(f"nothing stored in {folder}")
    try:
        record = _load_record(record_path)
        if not record.digest.startswith(prefix):
            raise IntegrityError(f"{record_path} records sha256 {record.digest}, expected {prefix}")
        for path, size in ((images_path, record.images_bytes), (labels_path, record.labels_bytes)):
            if path.stat().st_size != size:
                raise IntegrityError(f"{path} has {path.stat().st_size} bytes, expected {size}")
        images = np.load(images_path, mmap_mode="r", allow_pickle=False)
        labels = np.load(labels_path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{record_path.stem} in {folder} is damaged: {error}") from error
    if (images.shape, images.dtype, labels.shape, labels.dtype) != (
        record.shape,
        np.dtype(np.uint8),
        record.shape[:1],
        np.dtype(np.int64),
    ):
        raise IntegrityError(f"{images_path} does not have the recorded shape {record.shape}")
    return Cached(images=images, labels=labels, record=record, path=images_path)


def check(cached: Cached) -> None:
    """Read every sample and compare content and order with the record.

    Raises:
        IntegrityError: naming the file, the expected and the found digest.
    """
    order, found = canonical_order(cached.images, cached.labels)
    if found != cached.record.digest:
        raise IntegrityError(f"{cached.path} has content sha256 {found}, expected {cached.record.digest}.")
    if not np.array_equal(order, np.arange(len(order))):
        raise IntegrityError(f"{cached.path} has sha256 {found} as expected, but its rows are out of order.")


def _paths(folder: Path, split: str, digest: str) -> tuple[Path, Path, Path]:
    stem = f"{split}-{digest[:12]}"
    return folder / f"{stem}.images.npy", folder / f"{stem}.labels.npy", folder / f"{stem}.json"


def _load_record(path: Path) -> Record:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("digest"), str):
        raise ValueError("the record has no digest")
    count, channels, height, width = content.pop("shape")
    return Record(shape=(count, channels, height, width), **content)


def _write_array(path: Path, array: NDArray[np.uint8] | NDArray[np.int64]) -> None:
    with atomic(path) as partial, partial.open("wb") as file:
        # Not np.save: its tofile reports no error when the last bytes do not fit on the disk.
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(array).data)
