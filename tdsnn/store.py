"""Where checkpoints are: find, fetch and verify them. Nothing here needs torch.

A zoo entry is looked for in this order: the zoo folder that its manifest is in (the project's, or one of your
own named by ``TDSNN_ZOO``), the cache, the Hub. Of any other repository of a Hub only what loading needs is
fetched, and no code ever.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Literal

from tdsnn import hub, naming, paths
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.files import copy_atomic, sha256_of, verify
from tdsnn.manifest import home, list_models, load_release
from tdsnn.naming import is_folder
from tdsnn.progress import Progress, silent
from tdsnn.schema import FileRecord, Release
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE, verify_checkpoint

Source = Literal["path", "embedded", "folder", "cache", "hub"]
LARGEST_EMBEDDED_BYTES = 8 * 1024 * 1024
"""A checkpoint of the project itself is at most this large."""
LARGEST_STORE_BYTES = 60 * 1024 * 1024
"""All checkpoints of a checkout together; of them a wheel has the first seed of each entry."""
_NEEDED = (CONFIG_FILE, WEIGHTS_FILE)
_RESTORE = {
    "embedded": "Restore it with git checkout, or reinstall tdsnn-zoo.",
    "folder": "Publish the run there again: tdsnn-zoo publish RUN_DIR",
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a verified checkpoint lies on this machine."""

    name: str
    """Full zoo name or Hub reference; for an explicit path, the name in its ``config.json``."""
    folder: Path
    source: Source
    """``path`` (given), ``embedded`` (in the project), ``folder`` (in ``TDSNN_ZOO``), ``cache`` (fetched
    before), ``hub`` (fetched now)."""
    weights: FileRecord
    """``model.safetensors``, as verified."""
    files: tuple[FileRecord, ...]
    """What a release or a repository lists, as verified; empty for a folder outside the zoo, whose
    ``config.json`` alone vouches for the weights."""


def available(name: str) -> Source | None:
    """Where the weights of a zoo entry would come from; None when none were released. Reads no weights."""
    release = load_release(name)
    return None if release is None else source_of(release)


def source_of(release: Release) -> Source | None:
    """Where the weights of a release would come from; None when they are nowhere. Reads no weights."""
    folder, there = cached(release), stored(release.name)
    in_cache = all((folder / record.path).is_file() for record in release.files)
    # What outgrew the project's limit is in the cache, maybe beside the older files that it replaced.
    older = in_cache and any(_size(there / record.path) != record.size for record in release.files)
    if not older and any((there / name).exists() for name in _NEEDED):
        return "embedded" if home(release.name) == paths.bundled("zoo") else "folder"
    if in_cache:
        return "cache"
    return "hub" if release.hub_repo else None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def stored(name: str) -> Path:
    """Folder of an entry's checkpoint in its zoo folder; it need not exist."""
    return home(name) / "checkpoints" / name


def cached(release: Release) -> Path:
    """Folder of a release's checkpoint in the cache; it need not exist.

    What loading needs is part of the name, so a new release never meets the weights of an older one.
    """
    needed = (record for record in release.files if record.path in _NEEDED)
    content = "".join(sorted(f"{record.path}\0{record.sha256}\n" for record in needed))
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    return paths.cache_dir() / "checkpoints" / f"{release.name}-{key}"


def locate(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Location:
    """Find a checkpoint and verify every file of it, each read once.

    A file of the cache that was altered is kept as ``<name>.corrupt`` and fetched anew.

    Args:
        name: as for :func:`tdsnn.naming.parse`.
        revision: branch, tag or commit on the Hub to take instead of the one that the release pins.
        force: fetch from the Hub what the cache has already.

    Raises:
        UsageError: unknown name, no such folder, or a revision of what is on no Hub.
        MissingError: nothing was released, or the Hub cannot be reached.
        IntegrityError: a file differs from what was promised.
    """
    subject = _at_revision(name, revision)
    if isinstance(subject, Path):
        return _explicit(subject)
    if isinstance(subject, hub.Reference):
        return _referred(subject, force=force, progress=progress)
    return _entry(_release(subject), force=force, progress=progress)


def _at_revision(name: str | os.PathLike[str], revision: str | None) -> str | Path | hub.Reference:
    """What a name means, at another revision if one is asked for."""
    subject = naming.parse(name)
    if revision is None:
        return subject
    if isinstance(subject, Path):
        raise UsageError(f"The folder '{subject}' has no revisions.", hint="Leave out the revision.")
    if isinstance(subject, hub.Reference):
        if "@" in str(name):
            raise UsageError(f"'{name}' names a revision already.", hint="Leave out --revision.")
        return replace(subject, revision=revision)
    repo = _release(subject).hub_repo
    if not repo:
        raise UsageError(
            f"'{subject}' is on no Hub, so it has no revisions there.", hint="Leave out --revision."
        )
    return hub.Reference(repo=repo, revision=revision)


def download(
    name: str,
    *,
    to: Path | None = None,
    revision: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Location:
    """Make sure that a verified copy of a checkpoint lies on this machine, or in the folder ``to``.

    Without ``to``, the answer says where the files are.

    Args:
        name: a zoo entry or a repository, as for :func:`tdsnn.naming.parse`.
        revision: as for :func:`locate`.
        force: fetch again what the cache has, and replace other files of these names in ``to``.

    Raises:
        UsageError: unknown name, a folder, a revision of what is on no Hub, or ``to`` holds files with other
            content.
        MissingError, IntegrityError: as :func:`locate`.
    """
    subject = naming.parse(name)
    if isinstance(subject, Path) and is_folder(subject):
        raise UsageError(
            f"'{name}' is a folder of this machine, so there is nothing to download.",
            hint="A repository of that name: hf:owner/name. The zoo's models: tdsnn-zoo list",
        )
    location = locate(name, revision=revision, force=force, progress=progress)
    if to is None:
        return location
    for record in location.files:
        target = to / record.path
        same = target.is_file() and sha256_of(target) == record.sha256
        if target.exists() and not same and not (force and target.is_file()):
            raise UsageError(
                f"'{target}' exists and is not the file of {location.name}.",
                hint="Choose an empty folder for --to, or replace the file with --force.",
            )
    for record in location.files:
        copy_atomic(location.folder / record.path, to / record.path)
    _verify(location.files, to, hint="Run the command again.")
    return replace(location, folder=to)


def _entry(release: Release, *, force: bool, progress: Progress) -> Location:
    """The checkpoint of a release."""
    source = source_of(release)
    folder = stored(release.name) if source in ("embedded", "folder") else cached(release)
    if source is not None and source in _RESTORE:
        _verify(release.files, folder, hint=_RESTORE[source])
    elif release.hub_repo and release.hub_commit:
        remote = [hub.RemoteFile.of(record) for record in release.files]
        fetched = hub.complete(
            release.hub_repo, release.hub_commit, remote, folder, force=force, progress=progress
        )
        source = "hub" if fetched else "cache"
    elif source == "cache":
        _verify(release.files, folder, hint=_RESTORE["folder"])
    else:
        raise MissingError(
            f"The weights of '{release.name}' are neither embedded, nor cached, nor on a Hub.",
            hint=f"Train them: tdsnn-zoo train {quote(release.name)}",
        )
    return Location(
        name=release.name, folder=folder, source=source, weights=_weights(release.files), files=release.files
    )


def _explicit(folder: Path) -> Location:
    if not is_folder(folder):
        raise UsageError(
            f"There is no checkpoint folder '{folder}'.",
            hint=f"Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or a zoo model: tdsnn-zoo list",
        )
    release = _release_stored_in(folder)
    if release is not None:
        _verify(release.files, folder, hint=_RESTORE["embedded"])
    try:
        config, weights = verify_checkpoint(folder, known=_weights(release.files) if release else None)
    except IntegrityError as error:
        error.hint = "Copy the folder anew from where it came; nothing in it was changed."
        raise
    return Location(
        name=config.name,
        folder=folder,
        source="path",
        weights=weights,
        files=release.files if release else (),
    )


def _weights(files: tuple[FileRecord, ...]) -> FileRecord:
    return next(record for record in files if record.path == WEIGHTS_FILE)


def _release_stored_in(folder: Path) -> Release | None:
    """The release whose checkpoint is this very folder; None for a folder outside the zoo."""
    own = folder.resolve()
    if own != stored(own.name).resolve() or own.name not in list_models():
        return None
    release = load_release(own.name)
    # Of a release that outgrew the folder, what is there is an older checkpoint.
    return release if release and source_of(release) in ("embedded", "folder") else None


def _release(name: str) -> Release:
    release = load_release(name)
    if release is None:
        raise MissingError(
            f"No weights of '{name}' were released.", hint=f"Train them: tdsnn-zoo train {quote(name)}"
        )
    lacking = {*_NEEDED} - {record.path for record in release.files}
    if lacking:
        raise IntegrityError(f"The release of '{name}' does not list {' and '.join(sorted(lacking))}.")
    return release


def _verify(files: tuple[FileRecord, ...], folder: Path, *, hint: str) -> None:
    for record in files:
        try:
            verify(folder / record.path, record)
        except IntegrityError as error:
            error.hint = hint
            raise


def _referred(reference: hub.Reference, *, force: bool, progress: Progress) -> Location:
    """A checkpoint of a repository that no release describes."""
    snapshot = hub.take_snapshot(
        reference, paths.cache_dir() / "hub", choose=_choose, force=force, progress=progress
    )
    _, weights = verify_checkpoint(snapshot.folder, known=_weights(snapshot.files))
    return Location(
        name=str(replace(reference, revision=snapshot.commit)),
        folder=snapshot.folder,
        source="hub" if snapshot.fetched else "cache",
        weights=weights,
        files=snapshot.files,
    )


def _choose(repo: str, listed: Mapping[str, hub.RemoteFile]) -> list[hub.RemoteFile]:
    """What to fetch of a repository that no release describes."""
    lacking = [name for name in _NEEDED if name not in listed]
    if lacking:
        pickles = [name for name in listed if name.endswith(_PICKLES)]
        instead = f", only {pickles[0]}, which could run code when it is read" if pickles else ""
        raise UsageError(
            f"{repo} is no checkpoint of this zoo: it has no {' and no '.join(lacking)}{instead}.",
            hint="Ask its authors to publish it with tdsnn-zoo publish.",
        )
    return [listed[name] for name in (*_NEEDED, "README.md") if name in listed]
