"""Publish files as one commit of a model repository, and only if they change something there."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tdsnn import __version__
from tdsnn.errors import IntegrityError, TdsnnError, UsageError
from tdsnn.files import git_blob
from tdsnn.hub._client import require_network, talking
from tdsnn.hub._endpoint import endpoint, require_client
from tdsnn.hub.repository import Contents, Reference, ask

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Mapping[str, bytes]
"""Path in the repository to content."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a commit would do to one file."""

    path: str
    state: Literal["new", "changed", "unchanged", "removed"]
    size: int | None = None
    """Bytes; None for a file that would be removed."""
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Files beside those of a repository."""

    head: str | None
    """40-hex commit that was compared with; None if there is no such repository."""
    changes: tuple[Change, ...]
    others: tuple[str, ...]
    """Files of the repository that are none of ours; they stay as they are."""

    @property
    def unchanged(self) -> bool:
        """Whether the repository has all of the files already, and none that is obsolete."""
        return all(change.state == "unchanged" for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where files are on a Hub."""

    repo: str
    commit: str
    """40 hex digits."""
    new: bool
    """Whether a commit was made; False if everything was there already."""


def compare(
    reference: Reference, files: Files, *, owned: Callable[[str], bool] = lambda path: False
) -> Comparison:
    """What publishing files would change; changes nothing.

    Args:
        owned: whether a path of the repository is ours, so that it would be removed if ``files`` lacks it.

    Raises:
        Unreachable: no network.
        TdsnnError: the Hub refuses to tell.
    """
    what = f"Model {reference.repo}"
    require_network(what)
    with talking(what, TdsnnError):
        return _compare(_look(reference), files, owned)


def require_publishing(reference: Reference, *, tag: str | None = None, private: bool = False) -> None:
    """Refuse what cannot be published to, before anybody waits for it.

    Raises:
        UsageError: the revision is a commit, no such tag is possible, a repository that is public already was
            to be private, or the Hub has no valid address.
        TdsnnError: there is no token.
        Unreachable: no network, if ``private`` has to be looked at.
    """
    require_client()
    from huggingface_hub import get_token

    if reference.commit:
        raise UsageError(
            f"'{reference.revision}' is a commit; publishing needs a branch.",
            hint="For example --revision main.",
        )
    if tag is not None:
        replace(reference, revision=tag)
    if not get_token():
        raise TdsnnError(
            "Publishing needs a Hub token with the right to write, and there is none.",
            hint="Log in with 'hf auth login', or set HF_TOKEN.",
        )
    if private:
        what = f"Model {reference.repo}"
        require_network(what)
        with talking(what, TdsnnError):
            there = _look(Reference(repo=reference.repo))
        _require_private(reference, there)


def _require_private(reference: Reference, there: Contents | None) -> None:
    if there is not None and not there.private:
        raise UsageError(
            f"{reference.repo} exists and is public.", hint="Leave out --private, or name another repository."
        )


def publish(
    reference: Reference,
    files: Files,
    *,
    message: str,
    private: bool = False,
    tag: str | None = None,
    owned: Callable[[str], bool] = lambda path: False,
) -> Published:
    """Make repository and branch as needed, then one commit, unless that would be empty.

    Args:
        reference: repository and branch.
        message: first line of the commit.
        private: the repository must not be public.
        tag: name given to the commit.
        owned: as for :func:`compare`.

    Raises:
        UsageError: the revision is a commit, a public repository where a private one was asked for, or a tag
            that exists and means another commit.
        IntegrityError: the server has other content than was sent.
        Unreachable: no network.
        TdsnnError: no token, no right, or the Hub failed.
    """
    what = f"Model {reference.repo}"
    require_publishing(reference, tag=tag)
    require_network(what)
    api = _api()
    with talking(what, TdsnnError):
        api.create_repo(reference.repo, private=private or None, exist_ok=True)
        if private:
            _require_private(reference, ask(Reference(repo=reference.repo)))
        if reference.revision != "main":
            api.create_branch(reference.repo, branch=reference.revision, exist_ok=True)
        before = _compare(ask(reference), files, owned)
        tagged = tag is not None and _has_tag(api, reference.repo, tag, before)
        commit = before.head or ""
        if not before.unchanged:
            commit = _commit(api, reference, files, before, message)
            _check_received(replace(reference, revision=commit), files)
        if tag is not None and not tagged:
            api.create_tag(reference.repo, tag=tag, revision=commit)
    return Published(repo=reference.repo, commit=commit, new=not before.unchanged)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="tdsnn-zoo", library_version=__version__)


def _look(reference: Reference) -> Contents | None:
    """What is there; None if there is no such repository."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return ask(reference)
    except RepositoryNotFoundError:
        return None
    except RevisionNotFoundError:
        # A new branch begins as a copy of the main one.
        return ask(Reference(repo=reference.repo))


def _compare(
    there: Contents | None, files: Files, owned: Callable[[str], bool] = lambda path: False
) -> Comparison:
    remote = there.files if there else {}
    changes = []
    for path, content in sorted(files.items()):
        sha256 = hashlib.sha256(content).hexdigest()
        state: Literal["new", "changed", "unchanged"] = "new"
        if path in remote:
            state = "unchanged" if remote[path].key in (sha256, git_blob(content)) else "changed"
        changes.append(Change(path=path, state=state, size=len(content), sha256=sha256))
    gone = sorted(path for path in remote.keys() - files.keys() if owned(path))
    return Comparison(
        head=there.commit if there else None,
        changes=(*changes, *(Change(path=path, state="removed") for path in gone)),
        others=tuple(sorted(remote.keys() - files.keys() - set(gone))),
    )


def _commit(api: HfApi, reference: Reference, files: Files, before: Comparison, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for change in before.changes:
        if change.state == "removed":
            operations.append(CommitOperationDelete(path_in_repo=change.path))
        elif change.state != "unchanged":
            # A stream, not bytes: those the client would send by Xet, which no server but huggingface.co has.
            stream = io.BytesIO(files[change.path])
            operations.append(CommitOperationAdd(path_in_repo=change.path, path_or_fileobj=stream))
    with _silent("huggingface_hub._commit_api"):
        info = api.create_commit(
            reference.repo,
            operations,
            commit_message=message,
            revision=reference.revision,
            # What was compared with must still be there, or somebody else's commit would be overwritten.
            parent_commit=before.head,
        )
    return str(info.oid)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a logger from warning, here that streams do not go by Xet, which is why they are streams."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _check_received(reference: Reference, files: Files) -> None:
    wrong = [change.path for change in _compare(ask(reference), files).changes if change.state != "unchanged"]
    if wrong:
        raise IntegrityError(
            f"{endpoint()} has other content of '{wrong[0]}' in {reference.repo} than was sent.",
            hint="Publish it again.",
        )


def _has_tag(api: HfApi, repo: str, tag: str, before: Comparison) -> bool:
    """Whether the commit to be published has the tag; a tag of another commit is refused, before anything."""
    existing = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    if tag not in existing:
        return False
    if existing[tag] == before.head and before.unchanged:
        return True
    raise UsageError(
        f"The tag '{tag}' of {repo} exists and means another commit, {existing[tag]}.",
        hint="Choose another --tag; published tags stay.",
    )
