"""One file of a repository: resumed after an interruption, verified before it gets its name.

The Hub client accepts wrong bytes of the right size and starts again after a killed process. Here bytes go to
a ``.part`` file whose name holds the content that is wanted, so that any later call can go on with it, and
only the right content is ever given its final name.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tdsnn.errors import IntegrityError, TdsnnError
from tdsnn.files import file_error, set_aside
from tdsnn.hub._client import talking
from tdsnn.hub._endpoint import endpoint
from tdsnn.hub.repository import Kind, RemoteFile
from tdsnn.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

TRIES = 3
"""Attempts in a row that bring no new byte, before a download is given up."""
PAUSE_SECONDS = 1.0
SLOWEST_BYTES = 65_536
SLOWEST_SECONDS = 60.0
"""A download that brings fewer than ``SLOWEST_BYTES`` in that time is given up, so none takes longer than
that time for each ``SLOWEST_BYTES`` and the rest."""


def fetch_file(
    repo: str,
    file: RemoteFile,
    *,
    commit: str,
    target: Path,
    kind: Kind = "model",
    progress: Progress = silent,
) -> None:
    """Bring one file of a repository to ``target``.

    When nothing arrives any more it ends after ``TRIES`` silences of ``HF_HUB_DOWNLOAD_TIMEOUT`` (10 s).

    Args:
        repo: ``owner/name``.
        file: which one, and what its content must be.
        commit: 40-hex commit, so that what is fetched can never change.

    Raises:
        MissingError: no network, no such file, no access, or the server gave up.
        IntegrityError: other content than promised; it is kept as ``<target>.corrupt``.
        TdsnnError: the folder cannot be written, or has too little space.
    """
    what = f"'{file.path}' of {kind} {repo}"
    part = target.with_name(f".{target.name}.{file.key[:16]}.part")
    with file_error(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_symlink():
            part.unlink()  # not made by a download, and its target is somebody's file
        resumed = part.is_file() and part.stat().st_size > 0
    _receive_all(what, _url(repo, kind, file.path, commit), part, file.size, progress)
    try:
        file.check(part)
    except IntegrityError as error:
        if resumed:
            # The older bytes may be what is wrong, so the file gets one more chance, from its first byte.
            part.unlink()
            fetch_file(repo, file, commit=commit, target=target, kind=kind, progress=progress)
            return
        aside = set_aside(part, name=target.name)
        raise IntegrityError(
            error.message.replace(str(part), str(target)),
            hint=f"It came from {repo} and was kept as {aside}; run the command again to fetch it anew.",
        ) from error
    with file_error(target):
        part.replace(target)


def _url(repo: str, kind: Kind, filename: str, commit: str) -> str:
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}/resolve/{commit}/{quote(filename)}"


class _Pace:
    """Gives a download up that is too slow; counts only bytes that are new, as a server may start over."""

    def __init__(self, have: int) -> None:
        self._counted = have
        self._since = time.monotonic()

    def note(self, have: int) -> None:
        """Take note of how many bytes there are.

        Raises:
            Excess: that is too slow.
        """
        from tdsnn.hub._bounds import Excess

        now = time.monotonic()
        if have >= self._counted + SLOWEST_BYTES:
            self._counted, self._since = have, now
        elif now - self._since > SLOWEST_SECONDS:
            raise Excess(f"sends less than {SLOWEST_BYTES:,} bytes in {SLOWEST_SECONDS:.0f} s")


def _receive_all(what: str, url: str, part: Path, size: int, progress: Progress) -> None:
    """Append to ``part`` until it has ``size`` bytes, or the server has no more of them."""
    fruitless, most = -1, 0
    pace: _Pace | None = None
    while True:
        with file_error(part):
            part.touch()
            have = part.stat().st_size
        pace = pace or _Pace(have)
        # More than ever before, not more than last time: a server may start over each time.
        fruitless = 0 if have > most else fruitless + 1
        most = max(most, have)
        if have >= size or fruitless >= TRIES:
            return
        if fruitless:
            time.sleep(PAUSE_SECONDS)
        with talking(what):
            if _receive(url, part, have, size, pace, progress, final=fruitless + 1 >= TRIES):
                return


def _receive(
    url: str, part: Path, have: int, size: int, pace: _Pace, progress: Progress, *, final: bool
) -> bool:
    """One request for the bytes from ``have`` on. True: the server has no bytes there.

    Raises what the Hub client raises for a refusal, and for a transport error if this is the final attempt.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in its __all__
        build_hf_headers,
        hf_raise_for_status,
        httpx,
    )

    from tdsnn.hub._bounds import TRANSIENT, patience

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code == 416:
                return True
            if response.status_code in TRANSIENT and not final:
                time.sleep(patience(response))
                return False
            if not response.is_success:
                response.read()
                hf_raise_for_status(response)
            _append(response, part, have if response.status_code == 206 else 0, size, pace, progress)
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError):
        if final:
            raise
    return False


def _append(
    response: httpx.Response, part: Path, start: int, size: int, pace: _Pace, progress: Progress
) -> None:
    """Write the body from byte ``start`` on, and one piece too much at most."""
    _require_space(part, size - start)
    have = start
    with file_error(part), open(part, "r+b", opener=_not_followed) as stream:
        stream.truncate(start)
        stream.seek(start)
        # As sent: it was asked for without compression, and a bomb is never unpacked.
        for piece in response.iter_raw():
            stream.write(piece)
            have += len(piece)
            pace.note(have)
            progress(min(have, size), size)
            if have > size:
                break


def _not_followed(path: str, flags: int) -> int:
    """Opens a file, but none that a symlink leads to (where the system can tell)."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise TdsnnError(
            f"'{part.parent}' has {free:,} bytes free, but {needed:,} are still to come.",
            hint="Free some space, or name another folder with TDSNN_CACHE, then run the command again.",
        )
