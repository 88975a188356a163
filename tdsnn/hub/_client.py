"""Requests to the Hub that end in time and whose errors are ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdsnn.errors import MissingError, TdsnnError, Unreachable, UsageError
from tdsnn.hub._endpoint import brief, endpoint, require_client

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

PROBE_SECONDS = 6.0
"""A server that says nothing at all for so long cannot be reached; one that answers with an error can."""
_GATEWAY_ERRORS = range(502, 505)
_LOGIN = "Log in with 'hf auth login', or set HF_TOKEN to a token that may do this."
_REASONS = {
    400: ("refused the request as malformed", "Check the names and the metadata."),
    401: ("wants a valid token", _LOGIN),
    403: ("forbids this to the token in use, or to everybody without one", _LOGIN),
    409: ("says that something of this name exists or is being changed", "Look at it there, then try again."),
    412: ("says that the repository changed in the meantime", "Run the command again."),
    429: ("is asked too often", "Wait a few minutes, then run the command again."),
}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Whether the Hub can be asked for files now."""

    endpoint: str
    offline: bool
    """Whether ``HF_HUB_OFFLINE`` forbids to ask."""
    problem: str
    """Why there is no answer; empty if there is one."""


def connection() -> Connection:
    """Ask the Hub for a sign of life, for ``PROBE_SECONDS`` at most; in offline mode nobody is asked."""
    try:
        url = endpoint()
    except UsageError as error:
        return Connection(endpoint="HF_ENDPOINT", offline=False, problem=error.message.rstrip("."))
    from huggingface_hub.constants import is_offline_mode

    offline = is_offline_mode()
    problem = "HF_HUB_OFFLINE is set" if offline else _unreachable(url)
    return Connection(endpoint=url, offline=offline, problem=problem)


def require_network(what: str) -> None:
    """Fail within seconds where the client would retry a dead connection for half a minute.

    Raises:
        Unreachable: offline mode, or no answer.
        UsageError: ``HF_ENDPOINT`` is no address of a Hub.
    """
    require_client()
    found = connection()
    if found.offline:
        raise Unreachable(
            f"{what} is not on this machine and HF_HUB_OFFLINE is set.",
            hint="Unset HF_HUB_OFFLINE, or copy the cache of a machine that has it.",
        )
    if found.problem:
        raise Unreachable(
            f"{what} is not on this machine and {found.endpoint} cannot be reached: {found.problem}.",
            hint="Connect to the network, or name a mirror with HF_ENDPOINT=https://....",
        )


@contextmanager
def talking(what: str, failure: type[TdsnnError] = MissingError) -> Iterator[None]:
    """Bound every request of the Hub client inside the block and translate its errors.

    Where nothing but the moment is to blame, a ``MissingError`` becomes an ``Unreachable``.

    Args:
        what: subject of the sentence of an error, e.g. ``'x.json' of model a/b``.
        failure: class of the error.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

    from tdsnn.hub._bounds import bounds

    passing = Unreachable if failure is MissingError else failure
    try:
        with bounds():
            yield
    except HfHubHTTPError as error:
        # Not chained: a server may have put the token into its answer, and a traceback would show it.
        raise _refused(what, error, passing if _status(error) in _GATEWAY_ERRORS else failure) from None
    # The client takes any JSON for what it expects.
    except (
        httpx.HTTPError,
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        kind = passing if isinstance(error, httpx.TimeoutException) else failure
        raise kind(f"{what}: {endpoint()} {_broken_off(error)}.", hint="Run the command again.") from None


def _status(error: HfHubHTTPError) -> int:
    """0 for the errors that the client makes without an answer."""
    return int(getattr(error.response, "status_code", None) or 0)


def _refused(what: str, error: HfHubHTTPError, failure: type[TdsnnError]) -> TdsnnError:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    server = endpoint()
    if isinstance(error, GatedRepoError):
        return failure(
            f"{what}: {server} gives it only to people it has admitted.",
            hint=f"Ask for access on its page there, or accept its terms. {_LOGIN}",
        )
    if isinstance(error, RepositoryNotFoundError):
        reason = "has no such repository, or shows it only to its owners"
        return failure(f"{what}: {server} {reason}.", hint=f"Check the name. {_LOGIN}")
    if isinstance(error, RevisionNotFoundError):
        return failure(f"{what}: {server} has no such revision.", hint="Check the branch, tag or commit.")
    if isinstance(error, EntryNotFoundError):
        return failure(f"{what}: {server} has no such file.", hint="Check the name and the revision.")
    status = _status(error)
    reason, hint = _REASONS.get(status, ("failed", "Try again later."))
    said = brief(error.server_message or "")
    detail = ": ".join(part for part in (f"status {status}" if status else "", said) if part)
    return failure(f"{what}: {server} {reason} ({detail or brief(str(error))}).", hint=hint)


def _broken_off(error: Exception) -> str:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

    from tdsnn.hub._bounds import Excess

    if isinstance(error, Excess):
        return str(error)
    if isinstance(error, httpx.TimeoutException):
        return "stopped answering"
    cause = error.__cause__
    return f"broke off ({brief(str(cause or error)) or type(error).__name__})"


def _unreachable(url: str) -> str:
    """Why ``url`` gives no answer, or an empty string when it does.

    Asked through the client's own session, which alone knows of the user's proxies and certificates.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

    outcome: list[str] = []

    def probe() -> None:
        try:
            get_session().head(url, timeout=PROBE_SECONDS, follow_redirects=False)
            outcome.append("")
        # ImportError: for a SOCKS proxy the client needs a package more.
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError, ValueError, RuntimeError) as error:
            outcome.append(brief(str(error)) or type(error).__name__)

    # A thread, because the time-out of a socket does not cover a name server that never answers.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer in {PROBE_SECONDS:.0f} s"
