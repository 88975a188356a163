"""Decoded splits on disk: two memory-mapped arrays, a digest of each row, and a small record for each.

Rows are kept in *canonical order*, sorted by the sha256 of each sample's shape, pixels and label, so that
"the first n test images" are the same images whatever mirror they came from, in whatever order and encoding.
The digest of a split is the sha256 of those sorted sample hashes, so it too depends on content alone. The
hashes are kept beside the arrays: they are checked against the split's digest when it is opened, and rows
against them when they are first used, so that n images cost n images.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from tdsnn.data._arrays import open_array
from tdsnn.errors import IntegrityError, MissingError, TdsnnError
from tdsnn.files import atomic, read_json, write_atomic


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
    rows: Rows
    record: Record
    path: Path
    """File of the images."""


class Rows:
    """What rows must hash to; each is checked once in a process.

    Args:
        digests: uint8 (N, 32), sha256 of each row, in canonical order.
        path: file of the images, for the message.
    """

    def __init__(self, digests: NDArray[np.uint8], path: Path) -> None:
        self._digests, self._path = digests, path
        self._checked = np.zeros(len(digests), dtype=np.bool_)

    def check(self, images: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Compare images and labels, which are these rows, with what they must be.

        Raises:
            IntegrityError: naming the first row that differs.
        """
        new = np.flatnonzero(~self._checked[rows])
        wrong = (row_digests(images[new], labels[new]) != self._digests[rows[new]]).any(1)
        if wrong.any():
            raise IntegrityError(
                f"{self._path} was changed after it was decoded: {int(wrong.sum())} of the "
                f"{len(rows)} rows that are used, the first row {int(rows[new][wrong][0])}.",
                hint=f"Decode it again: tdsnn-zoo data fetch {quote(self._path.parent.name)}",
            )
        self._checked[rows] = True

    def digest(self, rows: NDArray[np.int64]) -> str:
        """Digest of a split that has these rows only, in ascending order."""
        return hashlib.sha256(self._digests[rows].tobytes()).hexdigest()


def canonical_order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], str]:
    """Order of the rows that depends on content alone, and the digest of the split.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).

    Returns:
        Indices (N,) that sort the rows, and 64 hex digits.
    """
    digests = row_digests(images, labels)
    keys = [row.tobytes() for row in digests]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.intp)
    return order, hashlib.sha256(digests[order].tobytes()).hexdigest()


def row_digests(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Sha256 of shape, pixels and label of each row, uint8 (N, 32)."""
    shape = "x".join(map(str, images.shape[1:])).encode()
    found = bytearray()
    for image, label in zip(images, np.ascontiguousarray(labels, dtype="<i8"), strict=True):
        sample = hashlib.sha256(shape)
        sample.update(np.ascontiguousarray(image).data)
        sample.update(label.tobytes())
        found += sample.digest()
    return np.frombuffer(bytes(found), dtype=np.uint8).reshape(len(images), hashlib.sha256().digest_size)


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
    images_path, labels_path, rows_path, record_path = _paths(folder, split, digest)
    try:
        _write_array(images_path, images)
        _write_array(labels_path, labels)
        write_atomic(rows_path, row_digests(images, labels).tobytes())
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
    """Open a stored split after checking sizes, shape and digests, but not yet its rows.

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
    images_path, labels_path, rows_path, record_path = _paths(folder, split, prefix)
    if not prefix or not record_path.is_file():
        raise MissingError(f"nothing stored in {folder}")
    try:
        record = _load_record(record_path)
        if not record.digest.startswith(prefix):
            raise IntegrityError(f"{record_path} records sha256 {record.digest}, expected {prefix}")
        for path, size in ((images_path, record.images_bytes), (labels_path, record.labels_bytes)):
            if path.stat().st_size != size:
                raise IntegrityError(f"{path} has {path.stat().st_size} bytes, expected {size}")
        images, labels = open_array(images_path), open_array(labels_path)
        digests = _stored_digests(rows_path, images, labels)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{record_path.stem} in {folder} is damaged: {error}") from error
    if (images.shape, images.dtype, labels.shape, labels.dtype) != (
        record.shape,
        np.dtype(np.uint8),
        record.shape[:1],
        np.dtype(np.int64),
    ):
        raise IntegrityError(f"{images_path} does not have the recorded shape {record.shape}")
    if hashlib.sha256(digests.tobytes()).hexdigest() != record.digest:
        raise IntegrityError(f"{rows_path} does not have the recorded digest {record.digest}")
    rows = Rows(digests.reshape(len(images), -1), images_path)
    return Cached(images=images, labels=labels, rows=rows, record=record, path=images_path)


def _stored_digests(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Digests of the rows, flat; computed for a split that was stored before there were any."""
    if path.is_file():
        return np.frombuffer(path.read_bytes(), dtype=np.uint8)
    digests = row_digests(images, labels)
    with suppress(TdsnnError):  # a cache that only others may write
        write_atomic(path, digests.tobytes())
    return digests.ravel()


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


def _paths(folder: Path, split: str, digest: str) -> tuple[Path, Path, Path, Path]:
    stem = f"{split}-{digest[:12]}"
    images, labels, rows, record = (
        folder / f"{stem}.{ending}" for ending in ("images.npy", "labels.npy", "rows.sha256", "json")
    )
    return images, labels, rows, record


def _load_record(path: Path) -> Record:
    content = read_json(path)
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
