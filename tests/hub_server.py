"""A Hub on this machine for the real Hub client: it takes uploads, serves downloads and can misbehave.

``hub_store`` says what it holds, ``hub_routes`` what it answers, ``hub_faults`` how it fails.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hub_faults import FAULTS, Fault
from hub_routes import Hub
from hub_store import Answer, Blob, Repo, Request

__all__ = ["FAULTS", "Fault", "HubServer"]


class _Handler(BaseHTTPRequestHandler):
    """One connection; keeps it open between requests, as the Hub does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Service

    def _serve(self) -> None:
        # Read in full even where the answer is an error: the next request follows on the same connection.
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        hub = self.server.hub
        fault = hub.noticed(request)
        if fault.kind == "ignore_range":
            request = replace(request, headers={**headers, "range": ""})
        if self.command == "PUT":
            request = replace(request, body=fault.spoil(body))
        refused = fault.kind in ("status", "drop")
        answer = Answer() if refused and not fault.done else hub.answer(request)
        if fault.kind == "drop":
            self.close_connection = True
        else:
            self._send(fault.refuse(request) if fault.kind == "status" else answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _send(self, answer: Answer, fault: Fault) -> None:
        body = fault.spoil(answer.body) if self.command != "PUT" else answer.body
        sent = b"" if self.command == "HEAD" else body
        broken = fault.kind in ("cut", "stall")
        if fault.kind == "stall" and not sent:
            self.server.hub.stopped.wait(fault.seconds)
        self.send_response(fault.code if fault.kind == "padded" and fault.code else answer.status)
        if fault.zipped:
            self.send_header("Content-Encoding", "gzip")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if fault.kind != "no_length":
            self.send_header("Content-Length", str(len(body)))
        # The end of the connection is then the only sign of the end of the body.
        self.close_connection = self.close_connection or broken or fault.kind == "no_length"
        if fault.kind == "no_length":
            self.send_header("Connection", "close")
        self.end_headers()
        if fault.kind == "drip":
            self._drip(sent, fault.seconds)
            return
        self.wfile.write(sent[: fault.at] if broken else sent)
        if fault.kind == "stall" and sent:
            self.server.hub.stopped.wait(fault.seconds)

    def _drip(self, body: bytes, seconds: float) -> None:
        for at in range(len(body)):
            self.wfile.write(body[at : at + 1])
            if self.server.hub.stopped.wait(seconds):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        """Without asking for the name of this machine, which can take seconds."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here; anything else is one of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class HubServer(Hub):
    """A running Hub. ``tokens`` may write and read, ``read_tokens`` only read; both map a token to a user.

    A repository that the client makes starts with ``.gitattributes``, as on the Hub; ``add`` adds none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        """``METHOD path`` of each, with the query, in order."""
        self.headers: list[Mapping[str, str]] = []
        """The headers of each, with names in lower case."""
        self.stopped = threading.Event()
        self._faults: list[tuple[re.Pattern[str], Fault, list[float]]] = []
        self._service = _Service(self)
        self.url = f"http://127.0.0.1:{self._service.server_address[1]}"
        threading.Thread(target=self._service.serve_forever, args=(0.02,), daemon=True).start()

    def add(
        self,
        repo: str,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        private: bool = False,
        kind: str = "model",
    ) -> str:
        """Commit these files on top of a branch, making what is missing; the commit's id."""
        with self.lock:
            found = self.repos.setdefault((kind, repo), Repo(kind, repo, private))
            if found.branches:
                found.branches.setdefault(revision, found.branches["main"])
            before = found.find(revision).files if revision in found.branches else {}
            blobs = {path: Blob.of(path, data) for path, data in files.items()}
            self.objects |= {blob.sha256: blob.data for blob in blobs.values() if blob.lfs}
            made = found.commit(revision, {**before, **blobs}, "Add files")
            found.branches.setdefault("main", made.id)
            return made.id

    def ranges(self) -> list[str]:
        """What the GETs for files asked for, in order; empty text for a whole file."""
        pairs = zip(self.requests, self.headers, strict=True)
        return [headers.get("range", "") for request, headers in pairs if request.startswith("GET")]

    def head(self, repo: str, revision: str = "main") -> str:
        return self._any(repo).find(revision).id

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return {path: blob.data for path, blob in self._any(repo).find(revision).files.items()}

    def commits(self, repo: str, revision: str = "main") -> list[str]:
        """Newest first."""
        return [commit.id for commit in self._any(repo).history(revision)]

    def tags(self, repo: str) -> dict[str, str]:
        return dict(self._any(repo).tags)

    def is_private(self, repo: str) -> bool:
        return self._any(repo).private

    def _any(self, repo: str) -> Repo:
        """A repository of either kind."""
        return self.repos.get(("model", repo)) or self.repos["dataset", repo]

    def misbehave(self, fault: Fault, *, on: str, times: int | None = 1) -> None:
        """For the next ``times`` requests (None: all) whose ``METHOD path`` has a match of ``on``."""
        with self.lock:
            self._faults.append((re.compile(on), fault, [float("inf") if times is None else times]))

    def behave(self) -> None:
        """Drop all faults."""
        with self.lock:
            self._faults.clear()

    def noticed(self, request: Request) -> Fault:
        """Log a request and choose its fault, of kind ``none`` if there is none."""
        line = f"{request.method} {request.target}"
        with self.lock:
            self.requests.append(line)
            self.headers.append(request.headers)
            for pattern, fault, left in self._faults:
                if left[0] > 0 and pattern.search(line):
                    left[0] -= 1
                    return fault
        return Fault("none")

    def stop(self) -> None:
        """End it at once, with the connections that clients keep for later."""
        self.stopped.set()
        self._service.shutdown()
        self._service.server_close()
        for connection in list(self._service.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
