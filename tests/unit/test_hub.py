"""Whether the Hub can be asked, and files of datasets from it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Fault, HubServer

from tdsnn import hub
from tdsnn.errors import MissingError


def ask() -> None:
    hub.look_up(hub.Reference(repo="someone/net"))


def test_dataset_file(hub_server: HubServer) -> None:
    hub_server.add("someone/images", {"plain/test.parquet": b"rows"}, kind="dataset")
    assert hub.fetch_dataset_file("someone/images", "plain/test.parquet").read_bytes() == b"rows"


def test_malformed_repository_name(hub_server: HubServer) -> None:
    with pytest.raises(MissingError, match="cannot be on a Hub"):
        hub.fetch_dataset_file("a/b/c/d", "x")


def test_no_network_ends_quickly(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(MissingError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        ask()
    assert time.monotonic() - start < 5


def test_server_that_never_answers_ends_quickly(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(MissingError, match="cannot be reached"):
            ask()
    assert time.monotonic() - start < 10


def test_gateway_error_counts_as_unreachable(hub_server: HubServer) -> None:
    hub_server.misbehave(Fault.status(503), on="^HEAD /$")
    with pytest.raises(MissingError, match="cannot be reached: status 503"):
        ask()


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
