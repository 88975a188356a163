"""The only module that talks to the Hugging Face Hub: fetch at a pinned commit and verify.

``HF_ENDPOINT`` is read at every call; ``HF_HUB_OFFLINE``, ``HF_HOME``, ``HF_HUB_CACHE`` and ``HF_TOKEN``
act as in every other Hub client. A file that is already in the client's cache needs no network.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from tdsnn.errors import IntegrityError, MissingError
from tdsnn.files import set_aside, verify
from tdsnn.types import FileRecord

_DEFAULT_ENDPOINT = "https://huggingface.co"
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
_GATEWAY_ERRORS = range(502, 505)


def fetch_file(repo: str, filename: str, *, commit: str, sha256: str, size: int) -> Path:
    """One file of a model repository, verified; the Hub client itself accepts wrong bytes of the right size.

    Args:
        repo: ``owner/name`` on the Hub.
        filename: path inside the repository.
        commit: 40-hex commit, so that what is fetched can never change.
        sha256, size: what the content must be (64 hex digits, bytes).

    Returns:
        The file in the Hub client's cache.

    Raises:
        MissingError: not cached and not to be had (no network, offline mode, no such repository or file).
        IntegrityError: other content than promised; the file is kept as ``<name>.corrupt``.
    """
    path = _fetch(repo, filename, repo_type="model", revision=commit)
    try:
        verify(path, FileRecord(path=filename, size=size, sha256=sha256))
    except IntegrityError as error:
        aside = set_aside(path.resolve())
        # The cache entry is usually a link to the file just renamed; dangling, it would block a retry.
        path.unlink(missing_ok=True)
        error.hint = f"It came from {repo} and was kept as {aside}; run the command again to fetch it anew."
        raise
    return path


def fetch_dataset_file(repo: str, filename: str) -> Path:
    """One file of a dataset repository at its newest revision, in the Hub client's cache; not verified here.

    Raises:
        MissingError: not cached and not to be had.
    """
    return _fetch(repo, filename, repo_type="dataset", revision="main")


def has_dataset_file(repo: str, filename: str) -> bool:
    """Whether a file of a dataset repository is in the Hub client's cache; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, filename, repo_type="dataset", revision="main")
    except HFValidationError:
        return False
    return isinstance(found, str)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Whether the Hub can be asked for files now."""

    endpoint: str
    offline: bool
    """Whether ``HF_HUB_OFFLINE`` forbids to ask."""
    problem: str
    """Why there is no answer; empty if there is one."""


def connection() -> Connection:
    """Ask the Hub for a sign of life, for 5 s at most; in offline mode nobody is asked."""
    from huggingface_hub.constants import is_offline_mode

    endpoint, offline = _endpoint(), is_offline_mode()
    problem = "HF_HUB_OFFLINE is set" if offline else _unreachable(endpoint)
    return Connection(endpoint=endpoint, offline=offline, problem=problem)


def _fetch(repo: str, filename: str, *, repo_type: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

    endpoint = _endpoint()
    what = f"'{filename}' of {repo_type} {repo}"

    def download(*, local_files_only: bool) -> Path:
        return Path(
            hf_hub_download(
                repo,
                filename,
                repo_type=repo_type,
                revision=revision,
                endpoint=endpoint,
                local_files_only=local_files_only,
            )
        )

    try:
        return download(local_files_only=True)
    except HFValidationError as error:
        raise MissingError(f"{what} cannot be on a Hub: {error}.") from error
    except (OSError, EntryNotFoundError):
        _require_network(what, endpoint)
    try:
        return download(local_files_only=False)
    except (OSError, EntryNotFoundError, httpx.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise MissingError(
            f"{what} could not be fetched from {endpoint}: {reason}.",
            hint="Check the name, your access (HF_TOKEN) and the free disk space, then try again.",
        ) from error


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")


def _require_network(what: str, endpoint: str) -> None:
    """Fail within seconds where the client would retry a dead connection for half a minute."""
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise MissingError(
            f"{what} is not in the Hub cache and HF_HUB_OFFLINE is set.",
            hint="Unset HF_HUB_OFFLINE, or copy the Hub cache of a machine that has the file.",
        )
    reason = _unreachable(endpoint)
    if reason:
        raise MissingError(
            f"{what} is not in the Hub cache and {endpoint} cannot be reached: {reason}.",
            hint="Connect to the network, or name a mirror with HF_ENDPOINT=https://....",
        )


def _unreachable(endpoint: str) -> str:
    """Why ``endpoint`` gives no answer, or an empty string when it does."""
    # Imported here because it takes a tenth of the time that `tdsnn-zoo list` may take.
    import urllib.error
    import urllib.request

    outcome: list[str] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            urllib.request.urlopen(request, timeout=_CONNECT_SECONDS).close()
            outcome.append("")
        except urllib.error.HTTPError as error:
            outcome.append(f"status {error.code}" if error.code in _GATEWAY_ERRORS else "")
        except (OSError, ValueError) as error:
            outcome.append(str(error).strip("<>") or type(error).__name__)

    # A thread, because the time-out of a socket does not cover a name server that never answers.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return outcome[0] if outcome else f"no answer in {_ANSWER_SECONDS:.0f} s"
