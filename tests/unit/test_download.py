"""A download from a Hub that misbehaves: never a wrong file under its name, and the next call recovers."""

from __future__ import annotations

import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hub_server import FAULTS, Fault, HubServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdsnn import hub
from tdsnn.errors import IntegrityError, MissingError, TdsnnError
from tdsnn.files import exclusive
from tdsnn.schema import FileRecord

NAME = "model.safetensors"
CONTENT = hashlib.shake_128(b"weights").digest(300_000)
TOKEN = "hf_read_secret"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between attempts, and a server that is silent for 0.2 s counts as gone."""
    monkeypatch.setattr("tdsnn.hub.download.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)


def remote(content: bytes = CONTENT) -> hub.RemoteFile:
    record = FileRecord(path=NAME, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return hub.RemoteFile.of(record)


def fetch(
    commit: str, target: Path, *, repo: str = "someone/net", content: bytes = CONTENT, **more: Any
) -> None:
    hub.fetch_file(repo, remote(content), commit=commit, target=target, **more)


def test_one_request_and_nothing_left_over(hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.add("someone/net", {NAME: CONTENT})
    seen: list[tuple[int, int]] = []
    fetch(commit, tmp_path / "to" / NAME, progress=lambda done, total: seen.append((done, total)))
    assert [path.name for path in (tmp_path / "to").iterdir()] == [NAME]
    assert (tmp_path / "to" / NAME).read_bytes() == CONTENT
    assert len(hub_server.ranges()) == 1
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_an_empty_file(hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.add("someone/net", {NAME: b""})
    fetch(commit, tmp_path / NAME, content=b"")
    assert (tmp_path / NAME).read_bytes() == b""


HARMLESS = {"ignored range", "no length", "cut", "stall", "truncated"}
"""What never keeps a download from being finished within the call."""
RECOVERS = {"drop", "drop after the work", "status 429"}
RECOVERS |= {"status 500", "status 502", "status 503"}
"""What does not if it happens once."""


@pytest.mark.parametrize(("name", "fault"), FAULTS)
@pytest.mark.parametrize("times", [1, None])
def test_each_fault(
    hub_server: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: Fault,
    times: int | None,
) -> None:
    monkeypatch.setattr("tdsnn.hub.download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    content = CONTENT[:100]  # some faults let ten bytes through each time
    commit = hub_server.add("someone/net", {NAME: content})
    hub_server.misbehave(fault, on="^GET .*/resolve/", times=times)
    target = tmp_path / NAME
    if name in HARMLESS or (times == 1 and name in RECOVERS):
        fetch(commit, target, content=content)
    else:
        began = time.monotonic()
        with pytest.raises((MissingError, IntegrityError)) as caught:
            fetch(commit, target, content=content)
        assert time.monotonic() - began < 5
        error = caught.value
        assert error.hint
        assert error.message.count("\n") == 0
        assert TOKEN not in f"{error.message}{error.hint}{error.__cause__}"
        assert isinstance(error, IntegrityError) == (name in ("wrong bytes", "longer"))
        assert not target.exists()
    hub_server.behave()
    fetch(commit, target, content=content)
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    ("fault", "word"),
    [(Fault.wrong_bytes(0), "altered"), (Fault.truncated(-5), "truncated"), (Fault.longer(), "too long")],
)
def test_wrong_content_is_kept_aside(hub_server: HubServer, tmp_path: Path, fault: Fault, word: str) -> None:
    commit = hub_server.add("someone/net", {NAME: CONTENT})
    hub_server.misbehave(fault, on="/resolve/", times=None)
    with pytest.raises(IntegrityError, match=f"{tmp_path / NAME}' is {word}") as caught:
        fetch(commit, tmp_path / NAME)
    assert hashlib.sha256(CONTENT).hexdigest() in caught.value.message
    assert hashlib.sha256(fault.spoil(CONTENT)).hexdigest() in caught.value.message
    aside = tmp_path / f"{NAME}.corrupt"
    assert f"kept as {aside}" in caught.value.hint
    assert aside.read_bytes() == fault.spoil(CONTENT)


def test_refusals_are_not_repeated(hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.add("someone/net", {NAME: CONTENT})
    hub_server.misbehave(Fault.status(403), on="/resolve/", times=None)
    with pytest.raises(MissingError, match=r"forbids this .* \(status 403"):
        fetch(commit, tmp_path / NAME)
    assert len(hub_server.ranges()) == 1


@pytest.mark.parametrize(("asked", "waits"), [(2, [2.0]), (3600, [])])
def test_a_server_that_asks_for_patience(
    hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, waits: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tdsnn.hub.download.time.sleep", lambda seconds: slept.append(seconds))
    commit = hub_server.add("someone/net", {NAME: CONTENT})
    hub_server.misbehave(Fault.status(429, retry_after=asked), on="/resolve/")
    if waits:
        fetch(commit, tmp_path / NAME)
    else:
        with pytest.raises(MissingError, match="is asked too often"):
            fetch(commit, tmp_path / NAME)
    assert [seconds for seconds in slept if seconds] == waits


def test_a_file_that_is_not_there(hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.add("someone/net", {"config.json": b"{}"})
    with pytest.raises(MissingError, match=r"'model\.safetensors' of model someone/net: .* has no such file"):
        fetch(commit, tmp_path / NAME)
    with pytest.raises(MissingError, match="has no such repository, or shows it only"):
        fetch(commit, tmp_path / NAME, repo="someone/else")
    with pytest.raises(MissingError, match="has no such revision"):
        fetch("0" * 40, tmp_path / NAME)


def test_a_cut_download_goes_on_within_the_call(hub_server: HubServer, tmp_path: Path) -> None:
    commit = hub_server.add("someone/net", {NAME: CONTENT})
    hub_server.misbehave(Fault.cut(100_000), on="/resolve/")
    fetch(commit, tmp_path / NAME)
    first, second = hub_server.ranges()
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 100_000


def test_a_lock_that_is_held_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.files.LOCK_SECONDS", 0.1)
    with exclusive(tmp_path), pytest.raises(TdsnnError, match="Another process"), exclusive(tmp_path):
        pass


SIZES = st.integers(1, 60_000)
BROKEN = st.one_of(
    st.builds(Fault.wrong_bytes, SIZES),
    st.builds(Fault.truncated, SIZES),
    st.builds(Fault.longer, st.integers(1, 9)),
    st.builds(Fault.cut, SIZES),
    st.just(Fault.drop()),
    st.just(Fault.ignore_range()),
    st.just(Fault.no_length()),
    st.builds(Fault.status, st.sampled_from([401, 403, 404, 409, 412, 429, 500, 503])),
)
EVENTS = st.lists(
    st.one_of(BROKEN, st.tuples(st.sampled_from(["kill", "flip", "cut"]), SIZES)), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=SIZES, events=EVENTS)
def test_interrupted_and_corrupted_downloads(
    hub_server: HubServer, tmp_path: Path, size: int, events: list[Fault | tuple[str, int]]
) -> None:
    """Faults of the server, kills of the process and damage of the partial file, at random points."""
    number = next(_numbers)
    content = hashlib.shake_128(str(number).encode()).digest(size)
    repo, target = f"someone/net{number}", tmp_path / str(number) / NAME
    commit = hub_server.add(repo, {NAME: content})
    for event in events:
        hub_server.behave()
        limit = size + 1
        if isinstance(event, Fault):
            hub_server.misbehave(event, on="^GET .*/resolve/")
        elif event[0] == "kill":
            limit = event[1]
        else:
            damage_part(target.parent, *event)
        try:
            fetch(
                commit,
                target,
                repo=repo,
                content=content,
                progress=lambda done, total, limit=limit: die(done, limit),
            )
        except (TdsnnError, KeyboardInterrupt):
            assert not target.exists()
        if target.exists():
            assert target.read_bytes() == content, "never a wrong file under its name"
            target.unlink()
    hub_server.behave()
    fetch(commit, target, repo=repo, content=content)
    assert target.read_bytes() == content


def die(done: int, limit: int) -> None:
    if done >= limit:
        raise KeyboardInterrupt


def damage_part(folder: Path, how: str, at: int) -> None:
    """Flip a bit of what is there of a download, or take its end away."""
    for part in folder.glob(".*.part"):
        content = bytearray(part.read_bytes())
        if how == "flip" and content:
            content[at % len(content)] ^= 1
        part.write_bytes(content[:at] if how == "cut" else content)
