"""What a server cannot make us do: wait without end, sleep as long as it likes, keep what it pours out."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import Fault, HubServer
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses

from tdsnn import hub
from tdsnn.errors import MissingError, TdsnnError, Unreachable
from tdsnn.hub import _bounds
from tdsnn.hub._client import talking
from tdsnn.schema import FileRecord

REPO, NAME = "someone/net", "model.safetensors"
CONTENT = hashlib.shake_128(b"weights").digest(3000)
INFO = "^GET /api/models/"


@pytest.fixture
def commit(hub_server: HubServer) -> str:
    return hub_server.add(REPO, {NAME: CONTENT})


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second instead of a minute, and bytes by the thousand instead of the million."""
    monkeypatch.setattr("tdsnn.hub.download.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("tdsnn.hub.download.SLOWEST_SECONDS", 0.1)
    monkeypatch.setattr(_bounds, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(_bounds, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(_bounds, "LARGEST_ANSWER", 20_000)
    monkeypatch.setattr(_bounds, "LARGEST_ERROR", 1_000)


def ask() -> hub.Contents:
    return hub.look_up(hub.Reference(repo=REPO))


def fetch(commit: str, target: Path) -> None:
    record = FileRecord(path=NAME, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
    hub.fetch_file(REPO, hub.RemoteFile.of(record), commit=commit, target=target)


def refused(message: str, action: Any, *arguments: Any) -> TdsnnError:
    began = time.monotonic()
    with pytest.raises(MissingError, match=message) as caught:
        action(*arguments)
    assert time.monotonic() - began < 2
    assert len(caught.value.message) < 600
    assert caught.value.hint
    return caught.value


def test_the_stated_bounds() -> None:
    assert (_bounds.LARGEST_ERROR, _bounds.LARGEST_ANSWER) == (10**6, 20 * 10**6)
    assert max(_bounds.ANSWER_SECONDS, _bounds.BODY_SECONDS, _bounds.LONGEST_PAUSE_SECONDS) <= 60


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("code", [0, 404, 500])
def test_answers_of_any_size(
    hub_server: HubServer, commit: str, bounds: None, code: int, zipped: bool
) -> None:
    limit = 1_000 if code else 20_000
    hub_server.misbehave(Fault.padded(limit, code=code, zipped=zipped), on=INFO)
    refused(f"answers with more than {limit:,} bytes", ask)
    hub_server.misbehave(Fault.padded(100, code=code, zipped=zipped), on=INFO)
    if code:
        refused(f"status {code}", ask)
    else:
        assert ask().commit == commit


def test_an_error_instead_of_a_file(hub_server: HubServer, commit: str, bounds: None, tmp_path: Path) -> None:
    hub_server.misbehave(Fault.padded(5_000, code=503), on="^GET .*/resolve/", times=None)
    refused("answers with more than 1,000 bytes", fetch, commit, tmp_path / NAME)


def test_an_answer_that_is_fetched_elsewhere(
    hub_server: HubServer, commit: str, bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a file does not make a file of an answer."""
    hub_server.add("someone/large", {NAME: b" " * 30_000})
    elsewhere = {"Location": f"{hub_server.url}/someone/large/resolve/main/{NAME}"}
    real = Fault.refuse
    monkeypatch.setattr(
        Fault, "refuse", lambda fault, request: replace_headers(real(fault, request), elsewhere)
    )
    hub_server.misbehave(Fault.status(302), on=INFO)
    refused("answers with more than 20,000 bytes", ask)


def test_a_file_is_never_decompressed(
    hub_server: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.misbehave(Fault.padded(zipped=True), on="^GET .*/resolve/")
    with pytest.raises(TdsnnError, match=r"altered|too long|truncated"):
        fetch(commit, tmp_path / NAME)
    fetch(commit, tmp_path / NAME)
    assert {headers.get("accept-encoding") for headers in hub_server.headers} == {"identity"}


@pytest.mark.parametrize("body", [b"[]", b"3", b'{"error": 5}', b'{"errors": [3]}', b"[" * 3000])
@pytest.mark.parametrize("code", [0, 500])
def test_answers_of_another_kind(
    hub_server: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch, body: bytes, code: int
) -> None:
    monkeypatch.setattr(Fault, "spoil", lambda fault, data: body if fault.kind == "padded" else data)
    hub_server.misbehave(Fault.padded(code=code), on=INFO)
    refused(REPO, ask)


def test_an_answer_byte_by_byte(hub_server: HubServer, commit: str, bounds: None) -> None:
    hub_server.misbehave(Fault.drip(0.01), on=INFO)
    refused("takes longer than 0 s for one answer", ask)


def test_a_file_byte_by_byte(hub_server: HubServer, commit: str, bounds: None, tmp_path: Path) -> None:
    hub_server.misbehave(Fault.drip(0.01), on="/resolve/")
    refused("sends less than 65,536 bytes in 0 s", fetch, commit, tmp_path / NAME)
    fetch(commit, tmp_path / NAME)
    assert hub_server.ranges()[-1].startswith("bytes="), "what had arrived was kept"


def test_a_file_in_ever_new_connections(
    hub_server: HubServer, commit: str, bounds: None, tmp_path: Path
) -> None:
    """Each brings one new byte, so that no attempt is in vain."""
    hub_server.misbehave(Fault.cut(1), on="/resolve/", times=None)
    refused("sends less than", fetch, commit, tmp_path / NAME)


PATIENCE = {"Retry-After": "86400"}, {"RateLimit": '"api";r=0;t=86400'}


@pytest.mark.parametrize("headers", PATIENCE, ids=str)
def test_a_server_that_asks_for_a_day(
    hub_server: HubServer,
    commit: str,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr("tdsnn.hub.download.time.sleep", no_waiting.append)
    real = Fault.refuse
    monkeypatch.setattr(
        Fault, "refuse", lambda fault, request: replace_headers(real(fault, request), headers)
    )
    hub_server.misbehave(Fault.status(429), on=".", times=None)
    refused("asked too often", ask)
    refused("asked too often", fetch, commit, tmp_path / NAME)
    with pytest.raises(TdsnnError, match="asked too often"), talking("The list", TdsnnError):
        # One of the requests that the client repeats by itself.
        list(HfApi(endpoint=hub_server.url).list_repo_tree(REPO))
    assert sum(no_waiting) < 60


def replace_headers(answer: Any, headers: dict[str, str]) -> Any:
    answer.headers.update(headers)
    return answer


def test_an_allowance_that_is_not_spent_is_no_reason_to_wait() -> None:
    headers = {"RateLimit": '"api";r=12;t=300'}
    assert _bounds.patience(httpx.Response(429, headers=headers)) == 0
    assert _bounds.patience(httpx.Response(503, headers={"RateLimit": '"api";r=0;t=300'})) == 0
    assert _bounds.patience(httpx.Response(503, headers={"Retry-After": "9" * 400})) == float("inf")


def test_a_refused_connection_does_not_lose_the_limits(
    hub_server: HubServer, commit: str, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it the client makes a new session, which is to end in time as well."""
    monkeypatch.setattr(_bounds, "ANSWER_SECONDS", 0.1)
    hub_server.misbehave(Fault.stall(0, 30.0), on="/tree/", times=None)
    first = iter([httpx.ConnectError("refused")])

    def refuse_once(request: httpx.Request) -> None:
        for error in first:
            raise error

    session = huggingface_hub.get_session()
    session.event_hooks = {**session.event_hooks, "request": [refuse_once]}
    began = time.monotonic()
    with pytest.raises(MissingError, match="stopped answering"), talking("The list"):
        list(HfApi(endpoint=hub_server.url).list_repo_tree(REPO))
    assert huggingface_hub.get_session() is not session
    assert time.monotonic() - began < 5
    assert not watched()


def watched() -> list[object]:
    """The bounds that are left on the client's session."""
    hooks = huggingface_hub.get_session().event_hooks
    return [hook for each in hooks.values() for hook in each if hook in (_bounds._limit, _bounds._bound)]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[httpx.Request]]:
    """What is asked for a sign of life, of a server that answers with status 502."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(502)

    session = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
    yield asked
    session.close()


def test_a_slow_or_failing_sign_of_life_is_one(probes: list[httpx.Request]) -> None:
    assert hub.connection().problem == ""
    assert min(probes[0].extensions["timeout"].values()) > 5


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_gateway_that_fails_is_named_and_what_is_here_will_do(
    hub_server: HubServer, cache: Path, commit: str, code: int
) -> None:
    hub_server.misbehave(Fault.status(code), on="^HEAD /$", times=None)

    def snapshot() -> hub.Snapshot:
        return hub.take_snapshot(
            hub.Reference(repo=REPO), cache, choose=lambda repo, listed: list(listed.values())
        )

    assert snapshot().commit == commit
    hub_server.misbehave(Fault.status(code), on=INFO, times=None)
    with pytest.raises(Unreachable, match=rf"failed \(status {code}") as caught:
        ask()
    assert "cannot be reached" not in caught.value.message
    assert snapshot().commit == commit


def test_threads_leave_the_session_as_it_was(hub_server: HubServer, commit: str) -> None:
    session = huggingface_hub.get_session()
    before, factory = session.event_hooks, _bounds._http._GLOBAL_CLIENT_FACTORY
    found: list[str] = []
    began = threading.Barrier(8)

    def work() -> None:
        began.wait(5)
        for _ in range(3):
            found.append(ask().commit)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [commit] * 24
    assert huggingface_hub.get_session() is session
    assert session.event_hooks == before
    assert _bounds._http._GLOBAL_CLIENT_FACTORY is factory


def test_calls_that_overlap_are_bounded_to_the_last(hub_server: HubServer) -> None:
    first, second = talking("a"), talking("b")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert len(watched()) == 2, "each hook once, for as long as one call runs"
    second.__exit__(None, None, None)
    assert not watched()
