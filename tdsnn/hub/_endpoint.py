"""Where the Hub is, and what of that and of its answers may be shown.

``HF_ENDPOINT`` may hold a password. It is taken out of the address before the Hub client sees it, and sent as
a header (see ``_bounds``), so that no message of the client can show it.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tdsnn.errors import UsageError
from tdsnn.text import visible

LONGEST_REASON = 300
"""Characters of what a server says about an error."""
_DEFAULT = "https://huggingface.co"
_ADDRESS = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?(?:/[^@?#\s\\]*)?", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=//)[^/?#\s]*@")
_QUERY = re.compile(r"(?<=://)([^\s?#'\"<>]+)[?#][^\s'\"<>]*")
_SHORTEST_SECRET = 4
"""A shorter one would take words apart that have nothing to do with it."""
_CLIENT = frozenset({"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"})


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An address of a Hub, taken apart."""

    url: str
    """Without user, password, query and trailing slash."""
    authorization: str
    """Header of that name for its user and password; empty without them."""
    secrets: tuple[str, ...]
    """What must not be shown, in every form it may appear in."""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Take an address apart; an ``@`` in the password need not be escaped.

        Raises:
            UsageError: it is no address of a Hub; the message does not repeat it.
        """
        scheme, _, rest = text.partition("://")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        user_info, at, _ = authority.rpartition("@")
        url = f"{scheme}://{rest.removeprefix(user_info + at)}".rstrip("/")
        try:
            # The client asks for the port as it is imported, and would end there.
            possible = urlsplit(text).port != 0
        except ValueError:
            possible = False
        if not possible or not _ADDRESS.fullmatch(url):
            raise UsageError(
                "HF_ENDPOINT is no address of a Hub.",
                hint="Unset it, or export HF_ENDPOINT=https://HOST/PATH, without a query; "
                "in a password write / as %2F, ? as %3F and # as %23.",
            )
        if not at:
            return cls(url=url, authorization="", secrets=())
        user, _, password = (unquote(part) for part in user_info.partition(":"))
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        forms = (user_info, user_info.partition(":")[2] or user_info, password or user, pair)
        return cls(url=url, authorization=f"Basic {pair}", secrets=forms)


def current() -> Endpoint:
    """``HF_ENDPOINT``, or huggingface.co.

    Raises:
        UsageError: as :meth:`Endpoint.parse`.
    """
    return Endpoint.parse(os.environ.get("HF_ENDPOINT", "").strip() or _DEFAULT)


def require_client() -> None:
    """Refuse an ``HF_ENDPOINT`` with which the Hub client may not even be imported.

    Raises:
        UsageError: as :meth:`Endpoint.parse`.
    """
    current()


def endpoint() -> str:
    """Base URL of the Hub; may be shown.

    Raises:
        UsageError: as :meth:`Endpoint.parse`.
    """
    return current().url


def public(text: str) -> str:
    """``text`` without the user's token, users, passwords and queries of URLs, and control characters."""
    return _hide(text, _secrets())


def _secrets() -> list[str]:
    """What must not be shown, the longest first."""
    hub = current()
    from huggingface_hub import get_token

    found = {*hub.secrets, get_token() or ""}
    return sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)


def _hide(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return visible(_QUERY.sub(r"\1", _USER_INFO.sub("", text)))


def brief(text: str) -> str:
    """The first line of :func:`public`, of at most ``LONGEST_REASON`` characters, without its full stop."""
    line = public(text).strip().partition("\n")[0].rstrip(".:")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def discreet() -> Callable[[], None]:
    """From now on the Hub client's logs and all warnings are made public; gives what ends that."""
    make, show, secrets = logging.getLogRecordFactory(), warnings.showwarning, _secrets()

    def make_public(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        if record.name.partition(".")[0] in _CLIENT:
            record.msg, record.args = _hide(record.getMessage(), secrets), ()
            if record.exc_info:
                record.exc_text = _hide(logging.Formatter().formatException(record.exc_info), secrets)
        return record

    def show_public(message: Warning | str, *more: Any, **options: Any) -> None:
        hidden = _hide(str(message), secrets)
        show(message if hidden == str(message) else hidden, *more, **options)

    def end() -> None:
        if logging.getLogRecordFactory() is make_public:
            logging.setLogRecordFactory(make)
        if warnings.showwarning is show_public:
            warnings.showwarning = show

    logging.setLogRecordFactory(make_public)
    warnings.showwarning = show_public
    return end
