"""Names of repositories and what a revision of one holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import git_blob, verify
from tdsnn.hub._client import require_network, talking
from tdsnn.hub._endpoint import brief, endpoint
from tdsnn.schema import FileRecord

PREFIX = "hf:"
Kind = Literal["model", "dataset"]
"""What a repository holds; a model and a dataset may have the same name."""
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST = 96
_HINT = "For example hf:org/name, or hf:org/name@v1 for a tag, a branch or a commit."


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A repository on the Hub and a revision of it."""

    repo: str
    """``owner/name``."""
    revision: str = "main"
    """Branch, tag or 40-hex commit."""
    kind: Kind = "model"

    def __post_init__(self) -> None:
        bad = ".." in self.repo or "--" in self.repo or len(self.repo) > _LONGEST
        if bad or not _REPO.fullmatch(self.repo):
            raise UsageError(f"'{self.repo}' cannot be the name of a repository on a Hub.", hint=_HINT)
        if ".." in self.revision or not _REVISION.fullmatch(self.revision):
            raise UsageError(f"'{self.revision}' cannot be a revision of a repository on a Hub.", hint=_HINT)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}"

    @property
    def commit(self) -> str | None:
        """The revision if it is a commit, which can never change; else None."""
        return self.revision if _COMMIT.fullmatch(self.revision) else None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``hf:owner/name`` or ``owner/name``, with or without ``@revision``.

        Raises:
            UsageError: no such name can be on a Hub.
        """
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        return cls(repo=repo, revision=revision) if at else cls(repo=repo)


def is_reference(text: str) -> bool:
    """Whether text names a repository on the Hub: ``hf:owner/name[@revision]``."""
    return text.startswith(PREFIX)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What the Hub says of a file."""

    path: str
    size: int
    """Bytes."""
    blob_id: str
    """Git's sha1 of the content; of the pointer, for a large file."""
    sha256: str | None
    """Of the content; the Hub knows it of large files only."""

    def __post_init__(self) -> None:
        digest, length = (self.sha256, 64) if self.sha256 is not None else (self.blob_id, 40)
        if type(self.size) is not int or self.size < 0 or not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
            raise IntegrityError(f"Size or digest of '{brief(self.path)}' on the Hub is malformed.")

    @classmethod
    def of(cls, record: FileRecord) -> RemoteFile:
        """A file whose content a release pins."""
        return cls(path=record.path, size=record.size, blob_id="", sha256=record.sha256)

    @property
    def key(self) -> str:
        """Digest of the content, hex."""
        return self.sha256 or self.blob_id

    def check(self, path: Path) -> None:
        """Compare a file with what the Hub says.

        Raises:
            IntegrityError: the file is missing or differs.
        """
        if self.sha256:
            verify(path, FileRecord(path=self.path, size=self.size, sha256=self.sha256))
        elif not path.is_file():
            raise IntegrityError(f"The file '{path}' is missing.")
        elif (found := git_blob(path.read_bytes())) != self.blob_id:
            raise IntegrityError(
                f"The file '{path}' is altered: expected {self.size} bytes with git's sha1 {self.blob_id}, "
                f"found {path.stat().st_size} bytes with {found}."
            )


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a repository has at a commit."""

    commit: str
    """40 hex digits."""
    private: bool
    files: Mapping[str, RemoteFile]
    """By path."""


def look_up(reference: Reference) -> Contents:
    """Ask the server what a revision is and holds.

    Raises:
        MissingError: no network, or no such repository or revision.
        IntegrityError: an answer that makes no sense.
    """
    what = f"{reference.kind.capitalize()} {reference.repo} at '{reference.revision}'"
    require_network(what)
    with talking(what):
        return ask(reference)


def ask(reference: Reference) -> Contents:
    """As :func:`look_up`, with the errors of the Hub client."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    info_of = api.model_info if reference.kind == "model" else api.dataset_info
    info = info_of(reference.repo, revision=reference.revision, files_metadata=True)
    commit = str(info.sha)
    if not _COMMIT.fullmatch(commit):
        raise IntegrityError(f"{endpoint()} names no commit of {reference.repo}, but '{brief(commit)}'.")
    files = [
        RemoteFile(
            path=str(entry.rfilename),
            size=entry.size if entry.size is not None else -1,
            blob_id=str(entry.blob_id),
            sha256=entry.lfs.sha256 if entry.lfs else None,
        )
        for entry in info.siblings or ()
    ]
    return Contents(commit=commit, private=bool(info.private), files={file.path: file for file in files})
