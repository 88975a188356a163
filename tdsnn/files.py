"""Whole-file helpers: content hashes and writes that are never seen half done."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tdsnn.errors import IntegrityError, TdsnnError
from tdsnn.types import FileRecord


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits, read as a stream."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Temporary name beside ``path`` that replaces it when the block ends without an error.

    Raises:
        TdsnnError: the folder cannot be written or the disk is full; ``path`` is then as it was.
    """
    # Not tempfile: its files are private, and a shared cache needs the user's usual permissions.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise TdsnnError(
            f"'{path}' could not be written: {error.strerror or error}.",
            hint="Check the folder's permissions and free space.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` in one step, making its folders as needed."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def copy_atomic(source: Path, target: Path) -> None:
    """Copy the content of ``source`` to ``target`` in one step."""
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def verify(path: Path, record: FileRecord) -> None:
    """Compare a file with its record.

    Raises:
        IntegrityError: the file is missing or differs; the message holds the expected and found SHA-256.
    """
    if not path.is_file():
        raise IntegrityError(f"The file '{path}' is missing.")
    size, found = path.stat().st_size, sha256_of(path)
    if (size, found) == (record.size, record.sha256):
        return
    change = "altered" if size == record.size else "truncated" if size < record.size else "too long"
    raise IntegrityError(
        f"The file '{path}' is {change}: expected {record.size} bytes with sha256 {record.sha256}, "
        f"found {size} bytes with sha256 {found}."
    )


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``<name>.corrupt``, so that it is neither used again nor lost."""
    return path.replace(path.with_name(f"{path.name}.corrupt"))
