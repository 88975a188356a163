"""Passwords and tokens: none of them is in what we say, nor in what the Hub client logs."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hub_server import Fault, HubServer
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

from tdsnn import hub
from tdsnn.errors import MissingError, UsageError
from tdsnn.hub import _bounds, _endpoint
from tdsnn.hub._client import talking
from tdsnn.hub._endpoint import Endpoint, public

REPO = "someone/net"
PASSWORD = "se@cr:et!w0rd"


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.fixture
def locked(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub for those who know the password in HF_ENDPOINT."""
    hub_server.add(REPO, {"config.json": b"{}"}, private=True)
    hub_server.tokens = {basic(f"alice:{PASSWORD}"): "alice"}
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url.replace("//", f"//alice:{PASSWORD}@"))
    return hub_server


@pytest.mark.parametrize(
    ("text", "url", "pair"),
    [
        ("https://huggingface.co/", "https://huggingface.co", None),
        ("http://127.0.0.1:8080/hub/", "http://127.0.0.1:8080/hub", None),
        ("http://[::1]:80", "http://[::1]:80", None),
        ("http://user:p@h.org", "http://h.org", "user:p"),
        ("http://us%40er:p%2Fw@h.org/x", "http://h.org/x", "us@er:p/w"),
        ("http://user:p@w@h.org", "http://h.org", "user:p@w"),
        ("http://key@h.org", "http://h.org", "key:"),
    ],
)
def test_addresses(text: str, url: str, pair: str | None) -> None:
    found = Endpoint.parse(text)
    assert (found.url, found.authorization) == (url, basic(pair) if pair else "")


@pytest.mark.parametrize(
    "text",
    [
        "huggingface.co",
        "ftp://secret@h.org",
        "http://",
        "http://user:secret@",
        "http://user:secret@h.org:port",
        "http://h.org:99999/secret",
        "http://user:se/cret@h.org",
        "http://user:12/secret@h.org",
        "http://user:se?cret@h.org",
        "http://user:se#cret@h.org",
        "http://user:se[cret@h.org",
        "https://h.org?token=secret",
        "https://h.org/#secret",
        "https://h.org/a b secret",
        "https://h.org\\secret",
    ],
)
def test_what_is_no_address_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT is no address") as caught:
        Endpoint.parse(text)
    assert "cret" not in caught.value.message + caught.value.hint


def test_the_password_reaches_the_hub_and_nobody_else(locked: HubServer) -> None:
    assert ask().private
    assert locked.headers[-1]["authorization"] == basic(f"alice:{PASSWORD}")
    elsewhere = httpx.Request("GET", "http://other.example/file")
    _bounds._limit(elsewhere)
    assert "Authorization" not in elsewhere.headers


def ask() -> hub.Contents:
    return hub.look_up(hub.Reference(repo=REPO))


@pytest.mark.parametrize(
    "fault", [Fault.status(503), Fault.status(403, echo_token=True), Fault.status(400), Fault.drop()], ids=str
)
def test_no_message_has_the_password(
    locked: HubServer,
    no_waiting: list[float],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    locked.misbehave(fault, on="/api/", times=None)
    shown = []
    for action in (ask, lambda: list(HfApi(endpoint=_endpoint.endpoint()).list_repo_tree(REPO))):
        with pytest.raises(MissingError) as caught, talking("The list"):
            action()
        shown.append(caught.value.message + caught.value.hint + repr(caught.value.__cause__))
    printed = "".join(capfd.readouterr())
    assert locked.url in shown[0]
    assert fault.kind != "status" or fault.code != 503 or "thrown while requesting" in caplog.text
    for secret in (PASSWORD, "w0rd", basic(f"alice:{PASSWORD}").removeprefix("Basic ")):
        assert secret not in caplog.text + printed + "".join(shown)


def test_logs_and_warnings_of_the_client_are_made_public(
    hub_server: HubServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_read_secret")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    makes, shows = logging.getLogRecordFactory(), warnings.showwarning
    text = "PUT https://u:passw@rd@cdn.org/x?X-Signature=abc&y=1 by hf_read_secret\x1b[2J"
    late = logging.getLogger("huggingface_hub.never_used_before")
    with warnings.catch_warnings(record=True) as caught, talking("x"):
        warnings.simplefilter("always")
        late.warning("said: %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            late.warning("failed", exc_info=True)
        warnings.warn(text, stacklevel=1)
        warnings.warn("harmless", FutureWarning, stacklevel=1)
    told = caplog.text + "".join(str(each.message) for each in caught)
    assert told.count("https://cdn.org/x by ***\ufffd[2J") == 3
    assert caught[-1].category is FutureWarning
    for secret in ("passw", "rd@", "Signature", "hf_read", "\x1b"):
        assert secret not in told
    caplog.clear()
    logging.getLogger("mine").warning(text)
    assert text in caplog.text, "what others log is theirs"
    assert (logging.getLogRecordFactory(), warnings.showwarning) == (makes, shows)


def test_what_a_server_repeats_of_the_token(
    hub_server: HubServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client logs what a server warns of, which may be anything."""
    monkeypatch.setenv("HF_TOKEN", "hf_read_secret")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    monkeypatch.setattr("huggingface_hub.utils._http._WARNED_TOPICS", set())
    hub_server.add(REPO, {"config.json": b"{}"})
    real = hub_server.answer

    def warn(request: object) -> object:
        answer = real(request)  # type: ignore[arg-type]
        answer.headers["X-HF-Warning"] = "all; you are hf_read_secret \x1b]0;title"  # type: ignore[index]
        return answer

    monkeypatch.setattr(hub_server, "answer", warn)
    ask()
    assert "you are *** \ufffd]0;title" in caplog.text


def test_texts() -> None:
    assert public("plain") == "plain"
    assert public("at http://u:a@b@h.org/x?token=1#z, http://h.org/?q.") == "at http://h.org/x http://h.org/"
    assert public("see '//key@h.org'") == "see '//h.org'"
    assert public("\x1b[31mred\x07\r\u202e") == "\ufffd[31mred\ufffd\ufffd\ufffd"


LOOK = "from tdsnn import hub; print(hub.connection().problem, hub.has_dataset_file('a/b', 'c'))"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-m", "tdsnn", "download", "someone/net@main"), 2),
        (("-m", "tdsnn", "report", "cards", "--check"), 2),
        (("-c", LOOK), 0),
    ],
)
def test_an_address_with_which_the_client_cannot_be_imported(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    environment = os.environ | {"HF_ENDPOINT": "http://user:pa/SECRET@h.org", "TDSNN_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "HF_ENDPOINT is no address of a Hub" in said
    assert "Traceback" not in said
    assert "SECRET" not in said
