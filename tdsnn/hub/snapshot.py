"""Folders that hold files of a repository, each verified, and complete or completed by the next call."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tdsnn.errors import IntegrityError, TdsnnError, Unreachable
from tdsnn.files import exclusive, read_json, set_aside, sha256_of, write_atomic
from tdsnn.hub._client import require_network
from tdsnn.hub.download import fetch_file
from tdsnn.hub.repository import Kind, Reference, RemoteFile, look_up
from tdsnn.progress import Progress, named, silent
from tdsnn.schema import FileRecord, plain
from tdsnn.validation import check

_INDEX = "files.json"
"""Beside the files: what was verified when they were fetched."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Files of a repository at one commit, on this machine."""

    commit: str
    """40 hex digits."""
    folder: Path
    fetched: bool
    """Whether anything had to be fetched now."""
    files: tuple[FileRecord, ...]


def take_snapshot(
    reference: Reference,
    root: Path,
    *,
    choose: Callable[[str, Mapping[str, RemoteFile]], Sequence[RemoteFile]],
    force: bool = False,
    progress: Progress = silent,
) -> Snapshot:
    """Make sure that chosen files of a repository are below ``root``.

    A commit that is there needs no network; a branch or tag needs none to mean what it meant last time.

    Args:
        choose: picks from all files, by path, of the repository that it is told; may refuse it.
        force: fetch what is there already.

    Raises:
        MissingError: no network, or no such repository or revision.
        IntegrityError: other content than the Hub promised.
        TdsnnError: the folder cannot be written, or has too little space.
    """
    home = root / reference.repo.replace("/", "--")
    commit, listed = _commit(reference, home / "refs" / reference.revision)
    folder = home / commit
    known = _read_index(folder)
    if not known and listed is None:
        listed = look_up(replace(reference, revision=commit)).files
    files = known or choose(reference.repo, listed or {})
    try:
        fetched = complete(reference.repo, commit, files, folder, force=force, progress=progress)
    except IntegrityError:
        # The index may be what is wrong; the next call asks the Hub.
        with suppress(OSError):
            (folder / _INDEX).unlink()
        raise
    records = tuple(_record(file, folder / file.path) for file in files)
    if fetched or not known:
        index = json.dumps([plain(record) for record in records], indent=2)
        write_atomic(folder / _INDEX, index.encode())
    return Snapshot(commit=commit, folder=folder, fetched=fetched, files=records)


def _record(file: RemoteFile, path: Path) -> FileRecord:
    """A file that was checked. Its digest vouches for the content, and for no size that the Hub stated."""
    return FileRecord(path=file.path, size=path.stat().st_size, sha256=file.sha256 or sha256_of(path))


def complete(
    repo: str,
    commit: str,
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    kind: Kind = "model",
    force: bool = False,
    progress: Progress = silent,
) -> bool:
    """Fetch those of the files that a folder lacks; whether there were any.

    One that was altered is kept as ``<name>.corrupt`` and fetched anew. Other processes wait meanwhile.

    Raises:
        MissingError, IntegrityError, TdsnnError: as :func:`take_snapshot`.
    """
    if not force and not _lacking(files, folder):
        return False
    # Before anything is put aside that could not be replaced.
    require_network(f"{kind.capitalize()} {repo}")
    with exclusive(folder):
        for file in files if force else _lacking(files, folder):
            path = folder / file.path
            if path.is_file() and not force:
                _log.warning("%s differs from its release: kept as %s, fetched anew.", path, set_aside(path))
            told = named(progress, file.path)
            fetch_file(repo, file, commit=commit, target=path, kind=kind, progress=told)
    return True


def _lacking(files: Sequence[RemoteFile], folder: Path) -> list[RemoteFile]:
    def kept(file: RemoteFile) -> bool:
        try:
            file.check(folder / file.path)
        except IntegrityError:
            return False
        return True

    return [file for file in files if not kept(file)]


def _commit(reference: Reference, known: Path) -> tuple[str, Mapping[str, RemoteFile] | None]:
    """The commit that a reference means now, and its files if the server was asked.

    Without a network, a branch or tag means what it meant last time.
    """
    if reference.commit:
        return reference.commit, None
    before = _read_ref(known)
    try:
        found = look_up(reference)
    except Unreachable:
        if before is None:
            raise
        return before, None
    if found.commit != before:
        # A cache that cannot be written, but has everything, will do.
        with suppress(TdsnnError):
            write_atomic(known, found.commit.encode())
    return found.commit, found.files


def _read_ref(path: Path) -> str | None:
    commit = path.read_bytes() if path.is_file() else b""
    return commit.decode() if re.fullmatch(rb"[0-9a-f]{40}", commit) else None


def _read_index(folder: Path) -> list[RemoteFile]:
    """What was fetched into a folder before; empty if nothing was, or the index is damaged."""
    path = folder / _INDEX
    try:
        records = check(
            read_json(path), tuple[FileRecord, ...], name=f"The index '{path}'", error=IntegrityError
        )
    except (OSError, ValueError, IntegrityError):
        return []
    return [RemoteFile.of(record) for record in records]
