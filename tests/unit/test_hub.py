"""Fetching with the real Hub client from a small server on this machine that can misbehave."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tdsnn import hub
from tdsnn.errors import IntegrityError, MissingError

COMMIT = "c" * 40
CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class StandIn:
    """Files by URL path, and every request seen as ``METHOD path``."""

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            state.requests.append(f"{self.command} {self.path}")
            content = state.files.get(self.path)
            self.send_response(200 if content is not None else 404)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.daemon_threads = True
    threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{service.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield state
    service.shutdown()
    service.server_close()


def serve(server: StandIn, content: bytes) -> None:
    server.files[f"/someone/net/resolve/{COMMIT}/model.safetensors"] = content


def fetch() -> Path:
    return hub.fetch_file("someone/net", "model.safetensors", commit=COMMIT, sha256=SHA256, size=len(CONTENT))


def test_fetch_at_commit_then_from_the_cache(server: StandIn) -> None:
    serve(server, CONTENT)
    assert fetch().read_bytes() == CONTENT
    seen = len(server.requests)
    assert fetch().read_bytes() == CONTENT
    assert len(server.requests) == seen, "a cached file needs no request"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [(b"W" + CONTENT[1:], "altered"), (CONTENT[:-5], "truncated"), (CONTENT + b"x", "too long")],
)
def test_wrong_content_is_kept_aside_and_fetched_anew(server: StandIn, wrong: bytes, word: str) -> None:
    serve(server, wrong)
    with pytest.raises(IntegrityError, match=word) as caught:
        fetch()
    assert SHA256 in caught.value.message
    assert hashlib.sha256(wrong).hexdigest() in caught.value.message
    aside = Path(caught.value.hint.partition("kept as ")[2].partition(";")[0])
    assert aside.name.endswith(".corrupt")
    assert aside.read_bytes() == wrong
    serve(server, CONTENT)
    assert fetch().read_bytes() == CONTENT


def test_file_that_the_repository_lacks(server: StandIn) -> None:
    with pytest.raises(
        MissingError, match=r"'model\.safetensors' of model someone/net could not be fetched"
    ) as caught:
        fetch()
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_dataset_file(server: StandIn) -> None:
    server.files["/datasets/someone/images/resolve/main/plain/test.parquet"] = b"rows"
    assert hub.fetch_dataset_file("someone/images", "plain/test.parquet").read_bytes() == b"rows"


def test_malformed_repository_name(server: StandIn) -> None:
    with pytest.raises(MissingError, match="cannot be on a Hub"):
        hub.fetch_dataset_file("a/b/c/d", "x")


def test_no_network_ends_quickly(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(MissingError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        fetch()
    assert time.monotonic() - start < 5


def test_server_that_never_answers_ends_quickly(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(MissingError, match="cannot be reached"):
            fetch()
    assert time.monotonic() - start < 10


def test_gateway_error_counts_as_unreachable(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_GATEWAY_ERRORS", range(404, 405))
    with pytest.raises(MissingError, match="cannot be reached: status 404"):
        fetch()


def test_offline_mode_asks_nobody(server: StandIn, tmp_path: Path) -> None:
    serve(server, CONTENT)
    code = (
        "from tdsnn import hub\nfrom tdsnn.errors import MissingError\n"
        f"try: hub.fetch_file('someone/net', 'model.safetensors', commit='{COMMIT}', sha256='', size=0)\n"
        "except MissingError as error: assert 'HF_HUB_OFFLINE is set' in error.message\n"
        "else: raise AssertionError('offline mode was ignored')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "other")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert server.requests == []
