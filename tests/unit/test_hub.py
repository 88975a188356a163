"""Whether the Hub can be asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

from tdsnn import hub
from tdsnn.errors import MissingError


def ask() -> None:
    hub.look_up(hub.Reference(repo="someone/net"))


def test_no_network_ends_quickly(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(MissingError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        ask()
    assert time.monotonic() - start < 5


def test_server_that_never_answers_ends_quickly(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdsnn.hub._client.PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(MissingError, match="cannot be reached"):
            ask()
    assert time.monotonic() - start < 3


def test_the_way_of_the_clients_own_session_is_the_way_that_counts(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy, a certificate or a transport of the user's is known to the session only."""

    def through_the_server(request: httpx.Request) -> httpx.Response:
        target = request.url.copy_with(host="127.0.0.1", port=int(hub_server.url.rpartition(":")[2]))
        with httpx.Client() as direct:
            return direct.send(httpx.Request(request.method, target, headers=request.headers))

    hub_server.add("someone/net", {"config.json": b"{}"})
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    transport = httpx.MockTransport(through_the_server)
    monkeypatch.setattr(
        "huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY", lambda: httpx.Client(transport=transport)
    )
    assert hub.connection().problem == ""


def test_all_proxy_is_honoured(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        answering = threading.Thread(target=_answer_once, args=[proxy], daemon=True)
        answering.start()
        assert hub.connection().problem == ""
        answering.join(5)


def _answer_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_offline_mode_asks_nobody(hub_server: HubServer, tmp_path: Path) -> None:
    code = (
        "from tdsnn import hub\nfrom tdsnn.errors import MissingError\n"
        "try: hub.look_up(hub.Reference(repo='someone/net'))\n"
        "except MissingError as error: assert 'HF_HUB_OFFLINE is set' in error.message\n"
        "else: raise AssertionError('offline mode was ignored')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "other")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert hub_server.requests == []
