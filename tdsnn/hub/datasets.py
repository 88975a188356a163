"""Files of dataset repositories, verified like checkpoints and kept in a folder named by their content.

What the Hub client's own cache has is used where it is: datasets are large, and other programs share them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tdsnn.errors import IntegrityError, MissingError, Unreachable, UsageError
from tdsnn.hub._endpoint import endpoint, require_client
from tdsnn.hub.repository import Contents, Reference, RemoteFile, look_up
from tdsnn.hub.snapshot import complete
from tdsnn.paths import cache_dir
from tdsnn.progress import Progress, named, silent

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch_dataset_files(
    repo: str, filenames: Sequence[str], *, by_size: bool = False, progress: Progress = silent
) -> tuple[Path, ...]:
    """Files of a dataset repository at its newest revision, or, without a network, as fetched last.

    Args:
        by_size: of a file that was verified when it was fetched, and lies where its digest says, compare the
            size only: to read a hundred gigabytes takes minutes.
        progress: told of the bytes.

    Raises:
        MissingError: not on this machine and not to be had (no network, no such repository or file).
        IntegrityError: other content than the Hub promised; the next call fetches it anew.
        TdsnnError: the cache cannot be written, or has too little space.
    """
    what = f"'{filenames[0]}' of dataset {repo}"
    try:
        reference = Reference(repo=repo, kind="dataset")
    except UsageError as error:
        raise MissingError(f"{what} cannot be on a Hub.", hint=error.hint) from error
    try:
        found = look_up(reference)
    except Unreachable:
        kept = [_last_fetched(repo, filename, by_size=by_size) for filename in filenames]
        if None in kept:
            raise
        return tuple(path for path in kept if path is not None)
    return tuple(
        _fetched(repo, found, filename, by_size=by_size, progress=progress) for filename in filenames
    )


def dataset_digests(repo: str) -> dict[str, str]:
    """sha256 of each large file of a dataset repository at its newest revision, by path.

    Raises:
        MissingError: no network, or no such repository.
    """
    files = look_up(Reference(repo=repo, kind="dataset")).files
    return {path: file.sha256 for path, file in files.items() if file.sha256}


def has_dataset_file(repo: str, filename: str) -> bool:
    """Whether a file of a dataset repository is on this machine; neither reads it nor asks the network."""
    return bool(_kept(repo, filename)) or _shared(repo, filename) is not None


def _last_fetched(repo: str, filename: str, *, by_size: bool) -> Path | None:
    """What was fetched of a file, and is as it was then."""
    for path in _kept(repo, filename):
        if by_size or _intact(path, path.relative_to(_home(repo)).parts[0]):
            return path
    shared = _shared(repo, filename)
    if shared is not None and (by_size or _intact(shared, shared.resolve().name)):
        return shared
    return None


def _fetched(repo: str, found: Contents, filename: str, *, by_size: bool, progress: Progress) -> Path:
    file = found.files.get(filename)
    if file is None:
        raise MissingError(
            f"'{filename}' of dataset {repo}: {endpoint()} has no such file.", hint="Check the name."
        )
    shared = _shared(repo, filename)
    if shared is not None and (_named_so(file, shared) if by_size else _is(file, shared)):
        return shared
    folder = _home(repo) / file.key
    path = folder / filename
    # Nothing gets this name that was not verified.
    if not (by_size and path.is_file() and path.stat().st_size == file.size):
        told = named(progress, f"Fetching bytes of {filename}")
        complete(repo, found.commit, [file], folder, kind="dataset", progress=told)
    return path


def _named_so(file: RemoteFile, path: Path) -> bool:
    """Whether a file has the size, and in the Hub client's cache the digest as its name."""
    return path.stat().st_size == file.size and path.resolve().name == file.key


def _home(repo: str) -> Path:
    return cache_dir() / "hub" / "datasets" / repo.replace("/", "--")


def _kept(repo: str, filename: str) -> list[Path]:
    """What was fetched of a file, of all its contents, the latest first."""
    found = (folder / filename for folder in _home(repo).glob("*"))
    return sorted(filter(Path.is_file, found), key=lambda path: path.stat().st_mtime, reverse=True)


def _shared(repo: str, filename: str) -> Path | None:
    """The file in the Hub client's own cache."""
    try:
        require_client()
    except UsageError:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, filename, repo_type="dataset", revision="main")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _intact(path: Path, digest: str) -> bool:
    """Whether a file has the content that its name in a cache promises; true where the name promises none."""
    if not _DIGEST.fullmatch(digest):
        return True
    sha256 = digest if len(digest) == 64 else None
    return _is(RemoteFile(path=path.name, size=path.stat().st_size, blob_id=digest, sha256=sha256), path)


def _is(file: RemoteFile, path: Path) -> bool:
    try:
        file.check(path)
    except IntegrityError:
        return False
    return True
