"""Files of dataset repositories, verified like checkpoints and kept in a folder named by their content.

What the Hub client's own cache has is used where it is: datasets are large, and other programs share them.
"""

from __future__ import annotations

import re
from pathlib import Path

from tdsnn.errors import IntegrityError, MissingError, Unreachable, UsageError
from tdsnn.hub._endpoint import endpoint, require_client
from tdsnn.hub.repository import Reference, RemoteFile, look_up
from tdsnn.hub.snapshot import complete
from tdsnn.paths import cache_dir
from tdsnn.progress import Progress, silent

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch_dataset_file(repo: str, filename: str, *, progress: Progress = silent) -> Path:
    """One file of a dataset repository at its newest revision, or, without a network, as fetched last.

    Args:
        progress: told of the bytes.

    Raises:
        MissingError: not on this machine and not to be had (no network, no such repository or file).
        IntegrityError: other content than the Hub promised; the next call fetches it anew.
        TdsnnError: the cache cannot be written, or has too little space.
    """
    what = f"'{filename}' of dataset {repo}"
    try:
        reference = Reference(repo=repo, kind="dataset")
    except UsageError as error:
        raise MissingError(f"{what} cannot be on a Hub.", hint=error.hint) from error
    shared = _shared(repo, filename)
    try:
        found = look_up(reference)
    except Unreachable:
        for path in _kept(repo, filename):
            if _intact(path, path.relative_to(_home(repo)).parts[0]):
                return path
        if shared is not None and _intact(shared, shared.resolve().name):
            return shared
        raise
    file = found.files.get(filename)
    if file is None:
        raise MissingError(f"{what}: {endpoint()} has no such file.", hint="Check the name.")
    if shared is not None and _is(file, shared):
        return shared
    folder = _home(repo) / file.key
    complete(repo, found.commit, [file], folder, kind="dataset", progress=progress)
    return folder / filename


def has_dataset_file(repo: str, filename: str) -> bool:
    """Whether a file of a dataset repository is on this machine; neither reads it nor asks the network."""
    return bool(_kept(repo, filename)) or _shared(repo, filename) is not None


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
