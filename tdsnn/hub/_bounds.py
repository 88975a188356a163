"""What a server may make the Hub client do: how long it waits, sleeps and reads, and how much it keeps.

The client asks most of its questions without any limit, makes a new session after a refused connection, and
sends some requests from threads of its own. So the bounds are hooks of whatever session it uses, and of each
that it makes, from the first to the last of our calls that overlap.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import get_session
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in its __all__
    _http,
    hf_raise_for_status,
    httpx,
)

from tdsnn.hub._endpoint import current, discreet

ANSWER_SECONDS = 20.0
"""Longest silence of the server within a request."""
BODY_SECONDS = 60.0
"""An answer that is no file has arrived in full after that time."""
LARGEST_ANSWER = 20_000_000
"""Bytes of an answer that is no file, decompressed."""
LARGEST_ERROR = 1_000_000
"""Bytes of what comes with an error or a redirection, decompressed."""
LONGEST_PAUSE_SECONDS = 10.0
"""A server that asks for more patience (``Retry-After``, ``RateLimit``) is given up at once."""
TRANSIENT = frozenset({408, 429, *range(500, 505)})
"""Statuses that another attempt may get over."""
_FILE = "tdsnn_file"
"""Extension of a request: whether a file was asked for."""
_SECONDS = re.compile(r"\s*(\d+)\s*")
_SPENT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")
"""``"api";r=0;t=55``: nothing is left for 55 s (draft-ietf-httpapi-ratelimit-headers-09)."""
_lock = threading.Lock()
_calls = 0
_undo: Callable[[], None]


class Excess(RuntimeError):
    """An answer without an end in sight; the text goes on from the server's name."""


@contextmanager
def bounds() -> Iterator[None]:
    """Hold all requests of the Hub client to the bounds while the block runs, in any number of threads."""
    global _calls, _undo
    with _lock:
        if not _calls:
            _undo = _watch()
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                _undo()


def _watch() -> Callable[[], None]:
    """Add the hooks to the client's session and to those it will make; how to take them away again."""
    make = _http._GLOBAL_CLIENT_FACTORY
    bounded: list[httpx.Client] = []

    def add(session: httpx.Client) -> httpx.Client:
        hooks = session.event_hooks
        session.event_hooks = {
            "request": [*hooks["request"], _limit],
            "response": [*hooks["response"], _bound],
        }
        bounded.append(session)
        return session

    def make_bounded() -> httpx.Client:
        return add(make())

    def undo() -> None:
        speak_freely()
        if _http._GLOBAL_CLIENT_FACTORY is make_bounded:
            _http._GLOBAL_CLIENT_FACTORY = make
        for session in bounded:
            hooks = session.event_hooks.items()
            session.event_hooks = {
                event: [hook for hook in each if hook not in (_limit, _bound)] for event, each in hooks
            }

    add(get_session())
    speak_freely = discreet()
    _http._GLOBAL_CLIENT_FACTORY = make_bounded
    return undo


def _limit(request: httpx.Request) -> None:
    """A time limit where the client sets none, no compression, and who ``HF_ENDPOINT`` says is asking."""
    asked = request.extensions.get("timeout", {})
    limits = httpx.Timeout(ANSWER_SECONDS).as_dict()
    request.extensions["timeout"] = {
        key: limit if asked.get(key) is None else asked[key] for key, limit in limits.items()
    }
    request.headers["Accept-Encoding"] = "identity"
    # Redirections have the same extensions: where an answer is sent from does not make it a file.
    request.extensions.setdefault(_FILE, _is_file(request))
    hub = current()
    if hub.authorization and _origin(request.url) == _origin(httpx.URL(hub.url)):
        request.headers["Authorization"] = hub.authorization


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _bound(response: httpx.Response) -> None:
    """Bound the body of an answer, unless it is a file, and refuse to wait as long as it asks for."""
    asked = response.request.extensions
    if _FILE not in asked:
        return  # a request of others, that began before any call of ours
    file = response.is_success and asked[_FILE]
    if not file and isinstance(response.stream, httpx.SyncByteStream):
        limit = LARGEST_ANSWER if response.is_success else LARGEST_ERROR
        encoding = response.headers.pop("Content-Encoding", "identity")
        response.stream = _Body(response.stream, limit, encoding)
    if response.status_code in TRANSIENT and patience(response) > LONGEST_PAUSE_SECONDS:
        hf_raise_for_status(response)


def _is_file(request: httpx.Request) -> bool:
    """Whether an answer would be the content of a file, whose size another place states."""
    path = request.url.path
    return request.method == "GET" and ("/resolve/" in path or "/api/" not in path)


def patience(response: httpx.Response) -> float:
    """Seconds that a server wants the client to wait before it asks again."""
    asked = [_SECONDS.fullmatch(response.headers.get("Retry-After", ""))]
    if response.status_code == 429:
        asked.append(_SPENT.search(response.headers.get("RateLimit", "")))
    return max(float(found[1]) if found else 0.0 for found in asked)


class _Body(httpx.SyncByteStream):
    """A body that ends, in time and at a size, or fails."""

    def __init__(self, body: httpx.SyncByteStream, limit: int, encoding: str) -> None:
        self._body = body
        self._limit = limit
        self._encoding = encoding.strip().lower()

    def __iter__(self) -> Iterator[bytes]:
        end, size = time.monotonic() + BODY_SECONDS, 0
        unpack = self._unpacking()
        for piece in self._body:
            try:
                plain = unpack(piece, self._limit - size + 1)
            except zlib.error as error:
                raise ValueError(f"its answer cannot be decompressed: {error}") from error
            size += len(plain)
            if size > self._limit:
                raise Excess(f"answers with more than {self._limit:,} bytes")
            if time.monotonic() > end:
                raise Excess(f"takes longer than {BODY_SECONDS:.0f} s for one answer")
            yield plain

    def _unpacking(self) -> Callable[[bytes, int], bytes]:
        """From a piece as sent to at most so many bytes of content."""
        if self._encoding in ("", "identity"):
            return lambda piece, most: piece
        if self._encoding in ("gzip", "deflate"):
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
        raise Excess(f"compresses its answer ({self._encoding}) though it was asked not to")

    def close(self) -> None:
        self._body.close()
