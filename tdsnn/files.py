"""Whole-file helpers: content hashes and writes that are never seen half done."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from tdsnn.errors import IntegrityError, TdsnnError, UsageError
from tdsnn.schema import FileRecord

_TOO_DEEP = "it is nested too deeply"
LOCK_SECONDS = 600.0


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content as 64 hex digits, read as a stream."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        OSError: the file cannot be read.
        ValueError: as :func:`parse_json`.
    """
    return parse_json(path.read_bytes())


def parse_json(content: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML document.

    Raises:
        OSError: the file cannot be read.
        ValueError: as :func:`parse_toml`.
    """
    return parse_toml(path.read_bytes())


def parse_toml(content: str | bytes) -> dict[str, Any]:
    """What a TOML text says.

    Raises:
        ValueError: it is not TOML in UTF-8, or nested too deeply.
    """
    try:
        return tomllib.loads(content if isinstance(content, str) else content.decode())
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def digest_of(document: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def git_blob(content: bytes) -> str:
    """What git calls a content, 40 hex digits; the Hub states no other digest of small files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Temporary name beside ``path`` that replaces it when the block ends without an error.

    Write it by ordinary means, so that it has the permissions of the user's umask: ``tempfile`` and
    ``safetensors.torch.save_file`` make private files, which nobody else could read in a shared folder.

    Raises:
        TdsnnError: the folder cannot be written or the disk is full; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with file_error(path), _folder(path.parent):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder, which goes again if the block ends with an error and it is empty."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


@contextmanager
def file_error(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses inside the block into a sentence about ``path``.

    Raises:
        TdsnnError: the folder cannot be written, the disk is full, ....
    """
    try:
        yield
    except OSError as error:
        raise TdsnnError(
            f"'{path}' could not be written: {error.strerror or error}.",
            hint="Check the folder's permissions and free space.",
        ) from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder, which is made as needed; the others wait, 10 min at most.

    The lock goes with its process, however that ends.

    Raises:
        TdsnnError: the folder cannot be written, or another process is still at work after that time.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    with file_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise TdsnnError(
                f"Another process has been at work in '{folder}' for {LOCK_SECONDS:.0f} s.",
                hint="Wait for it or stop it, then run the command again.",
            ) from error
    try:
        yield
    finally:
        lock.release()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` in one step, making its folders as needed."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def undone(*places: Path) -> Iterator[None]:
    """Put files, and folders with all that is in them, back as they were if the block ends with an error.

    Their content is kept in memory meanwhile.
    """
    before, new = _contents(places), [place for place in places if not place.exists()]
    try:
        yield
    except BaseException:
        for path, content in _contents(places).items():
            if path not in before:
                path.unlink()
            elif before[path] == content:
                del before[path]
        for path, content in before.items():
            write_atomic(path, content)
        for place in new:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _contents(places: Iterable[Path]) -> dict[Path, bytes]:
    files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in files}


def require_free(path: Path, *, option: str = "--out") -> None:
    """Refuse to replace what somebody may still want.

    Args:
        option: that names it.

    Raises:
        UsageError: there is such a file, or a folder of that name that is not empty.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        state = "is not empty" if path.is_dir() else "exists"
        raise UsageError(
            f"'{path}' {state}.",
            hint=f"Choose another name for {option}, or replace what is there with --force.",
        )


def require_file(path: Path, *, option: str) -> None:
    """Refuse a place where a file could not be written, before it is computed what should be in it.

    Raises:
        UsageError: it is a folder, or lies where none can be; the hint names the option that chose it.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder.", hint=f"Name a file for {option}.")
    require_folder(path.parent, option=option)


def require_folder(path: Path, *, option: str = "--out") -> None:
    """As :func:`require_file`, of a folder for files.

    Raises:
        UsageError: it is no folder and cannot become one, or this user may not write there.
    """
    # Path.exists would raise where this user may not look.
    there = next(one for one in (path, *path.absolute().parents) if os.access(one, os.F_OK))
    if not there.is_dir():
        raise UsageError(f"'{there}' is no folder.", hint=f"Choose another name for {option}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"'{there}' may not be written by you.", hint=f"Choose another folder for {option}.")


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


def set_aside(path: Path, *, name: str | None = None) -> Path:
    """Rename a damaged file to ``<name>.corrupt``, then ``.corrupt-2``, ...: neither used again nor lost.

    Args:
        name: of the file as the user knows it; by default that of ``path``.
    """
    stem = path.with_name(f"{name or path.name}.corrupt")
    free = (stem if number == 1 else stem.with_name(f"{stem.name}-{number}") for number in count(1))
    with file_error(path):
        return path.replace(next(aside for aside in free if not aside.exists()))
