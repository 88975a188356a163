"""The Hub for tests, misbehaving: what the real Hub client makes of it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from hub_client import FILES, GET_WEIGHTS, REPO, TEXT, WEIGHTS, download, push
from hub_server import FAULTS, Fault, HubServer
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2, as it uses


@pytest.fixture
def api(hub_server: HubServer) -> HfApi:
    return HfApi(endpoint=hub_server.url, token="hf_write_secret")


def test_wrong_bytes_pass_the_client(hub_server: HubServer) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.wrong_bytes(), on=GET_WEIGHTS)
    assert download() == Fault.wrong_bytes().spoil(WEIGHTS) != WEIGHTS
    hub_server.behave()
    assert download() != WEIGHTS, "the client trusts its cache"


@pytest.mark.parametrize("fault", [Fault.truncated(100), Fault.longer(3)], ids=lambda fault: fault.kind)
def test_wrong_length(hub_server: HubServer, fault: Fault) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(fault, on=GET_WEIGHTS)
    with pytest.raises(OSError, match="Consistency check failed"):
        download()
    assert download() == WEIGHTS
    hub_server.misbehave(fault, on="config", times=None)
    assert download("config.json") == fault.spoil(TEXT), "HEAD tells the same wrong length"


@pytest.mark.parametrize(
    ("fault", "resumed"),
    [
        (Fault.cut(100_000), True),
        (Fault.stall(100_000, 0.1), True),
        (Fault.cut(0), False),
        (Fault.drop(), False),
    ],
    ids=["cut", "stall", "cut at once", "drop"],
)
def test_resumed_download(
    hub_server: HubServer,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    resumed: bool,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub_server.add(REPO, FILES)
    hub_server.misbehave(fault, on=GET_WEIGHTS)
    assert download() == WEIGHTS
    assert no_waiting == [1]
    assert hub_server.headers[-1].get("range") == ("bytes=98304-" if resumed else None)


def test_ranges(hub_server: HubServer) -> None:
    url = f"{hub_server.url}/{REPO}/resolve/{hub_server.add(REPO, FILES)}/config.json"
    session = huggingface_hub.get_session()
    part = session.get(url, headers={"Range": "bytes=5-"})
    assert (part.status_code, part.content) == (206, TEXT[5:])
    assert part.headers["Content-Range"] == f"bytes 5-{len(TEXT) - 1}/{len(TEXT)}"
    assert session.get(url, headers={"Range": "bytes=2-3"}).content == TEXT[2:4]
    assert session.get(url, headers={"Range": f"bytes={len(TEXT)}-"}).status_code == 416
    hub_server.misbehave(Fault.ignore_range(), on="config")
    whole = session.get(url, headers={"Range": "bytes=5-"})
    assert (whole.status_code, whole.content) == (200, TEXT)


def test_resume_without_ranges(
    hub_server: HubServer, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.cut(100_000), on=GET_WEIGHTS)
    hub_server.misbehave(Fault.ignore_range(), on=GET_WEIGHTS)
    assert download() == WEIGHTS
    assert hub_server.headers[-1]["range"] == "bytes=98304-"


def test_silence_is_ended_by_the_time_limit(
    hub_server: HubServer, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.stall(10, 60), on=GET_WEIGHTS)
    start = time.monotonic()
    assert download() == WEIGHTS
    assert time.monotonic() - start < 5


def test_silence_does_not_keep_a_process() -> None:
    code = (
        "import threading, urllib.request\nfrom hub_server import *\nserver = HubServer()\n"
        "server.misbehave(Fault.stall(3, 60), on='GET /')\n"
        "print(urllib.request.urlopen(server.url).read(3))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=5)


def test_no_length(hub_server: HubServer) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.no_length(), on="resolve", times=None)
    assert download() == WEIGHTS
    url = f"{hub_server.url}/{REPO}/resolve/main/config.json"
    answer = huggingface_hub.get_session().get(url)
    assert answer.content == TEXT
    assert "Content-Length" not in answer.headers


def test_cut_ends_at_once(hub_server: HubServer) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.cut(4), on="config")
    start = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError, match="received 4 bytes, expected 16"):
        huggingface_hub.get_session().get(f"{hub_server.url}/{REPO}/resolve/main/config.json", timeout=5)
    assert time.monotonic() - start < 2


def test_status_of_a_download(hub_server: HubServer, no_waiting: list[float]) -> None:
    """Any refusal of the first request but 401 looks like a missing file; its cause says more."""
    hub_server.add(REPO, FILES)
    for code in (401, 403, 404, 409, 412, 500, 502, 503):
        hub_server.misbehave(Fault.status(code), on="^HEAD ", times=None)
        with pytest.raises(RepositoryNotFoundError if code == 401 else LocalEntryNotFoundError) as caught:
            download()
        refusal = caught.value if code == 401 else caught.value.__cause__
        assert isinstance(refusal, HfHubHTTPError)
        assert refusal.response.status_code == code
        assert len(no_waiting) == (5 if code >= 500 else 0)
        no_waiting.clear()
        hub_server.behave()
    assert download() == WEIGHTS


def test_status_of_the_content(hub_server: HubServer, no_waiting: list[float]) -> None:
    hub_server.add(REPO, FILES)
    for code in (401, 403, 404, 500, 503):
        hub_server.misbehave(Fault.status(code), on=GET_WEIGHTS)
        with pytest.raises(HfHubHTTPError) as caught:
            download()
        assert caught.value.response.status_code == code
    assert download() == WEIGHTS
    assert no_waiting == []


def test_status_of_a_call(hub_server: HubServer, api: HfApi) -> None:
    before = hub_server.add(REPO, FILES)
    for code in (401, 403, 404, 409, 412, 500, 502, 503):
        hub_server.misbehave(Fault.status(code), on="/commit/")
        with pytest.raises(HfHubHTTPError) as caught:
            api.delete_file("config.json", REPO)
        assert caught.value.response.status_code == code
        assert hub_server.head(REPO) == before
    api.delete_file("config.json", REPO)
    assert hub_server.head(REPO) != before


def test_gated_repo(hub_server: HubServer) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.status(403, error_code="GatedRepo"), on="resolve")
    with pytest.raises(GatedRepoError):
        download()


def test_retried_upload(hub_server: HubServer, api: HfApi, no_waiting: list[float]) -> None:
    hub_server.add(REPO, {})
    for step in ("preupload", "objects/batch", "^PUT ", "/verify"):
        hub_server.misbehave(Fault.status(503), on=step)
    hub_server.misbehave(Fault.drop(done=True), on="^PUT ")
    push(api)
    assert no_waiting == [1, 1, 1, 2, 1]
    assert hub_server.files(REPO) == FILES


def test_too_many_requests(hub_server: HubServer, no_waiting: list[float]) -> None:
    hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.status(429, retry_after=7), on=GET_WEIGHTS, times=2)
    assert download() == WEIGHTS
    assert no_waiting == [8, 8]


@pytest.mark.parametrize("done", [False, True])
def test_lost_answer(hub_server: HubServer, api: HfApi, done: bool) -> None:
    before = hub_server.add(REPO, FILES)
    hub_server.misbehave(Fault.drop(done=done), on="/commit/")
    with pytest.raises(httpx.RemoteProtocolError):
        api.delete_file("config.json", REPO)
    assert (hub_server.head(REPO) != before) == done


def test_echoed_token(hub_server: HubServer, api: HfApi) -> None:
    hub_server.misbehave(Fault.status(403, echo_token=True), on="whoami")
    with pytest.raises(HfHubHTTPError, match="Bearer hf_write_secret"):
        api.whoami()


def test_stopped_server_is_gone(hub_server: HubServer, api: HfApi) -> None:
    hub_server.add(REPO, FILES)
    api.model_info(REPO)
    hub_server.stop()
    with pytest.raises(httpx.HTTPError):
        api.model_info(REPO)


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_every_fault_ends(hub_server: HubServer, no_waiting: list[float], name: str, fault: Fault) -> None:
    """Once during a download: afterwards the server is as good as before."""
    hub_server.add(REPO, FILES)
    hub_server.misbehave(fault, on=GET_WEIGHTS)
    with contextlib.suppress(OSError, httpx.HTTPError):
        download()
    assert any(re.search(GET_WEIGHTS, line) for line in hub_server.requests), name
    path = hf_hub_download(REPO, "weights/model.safetensors", force_download=True)
    assert Path(path).read_bytes() == WEIGHTS
