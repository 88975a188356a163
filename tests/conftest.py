"""Keeps every test away from the user's caches and from the network."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer

# One for all processes of a session, so that operators are compiled and data is decoded once.
if "TDSNN_TESTS" not in os.environ:
    _HOME = tempfile.TemporaryDirectory(prefix="tdsnn-tests-")
    os.environ["TDSNN_TESTS"] = _HOME.name
_FOLDER = Path(os.environ["TDSNN_TESTS"])
# The Hub client reads these when it is imported, so they are set before any test module is.
os.environ.update(
    HF_HOME=str(_FOLDER),
    HF_HUB_CACHE=str(_FOLDER / "hub"),
    HF_ENDPOINT="http://127.0.0.1:9",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",
    NO_PROXY="127.0.0.1,localhost",
    TDSNN_CACHE=str(_FOLDER / "tdsnn"),
)
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TDSNN_RUNS", "TDSNN_ZOO"):
    os.environ.pop(_name, None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test; the others share one for the session, so that data is decoded once."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TDSNN_CACHE", str(folder))
    return folder


@pytest.fixture
def cache_with_data(cache: Path) -> Path:
    """The same with the data that this session's tests have decoded, for tests of everything else."""
    decoded = _FOLDER / "tdsnn" / "data"
    decoded.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (cache / "data").symlink_to(decoded)
    return cache


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """PyTorch with one thread, or as many as ``parametrize("threads", ..., indirect=True)`` says."""
    import torch

    before = torch.get_num_threads()
    count = getattr(request, "param", 1)
    torch.set_num_threads(count)
    yield count
    torch.set_num_threads(before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty stand-in for the folder that holds zoo/, benchmarks/ and cards/."""
    root = tmp_path / "project"
    for part in ("models", "releases", "checkpoints"):
        (root / "zoo" / part).mkdir(parents=True)
    monkeypatch.setattr("tdsnn.paths.bundled", root.joinpath)
    return root


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub of this test's own, which the Hub client takes for the real one; nobody is logged in."""
    import huggingface_hub
    from huggingface_hub import constants, hf_api

    server = HubServer()
    hub_cache = str(tmp_path / "hub")
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", hub_cache)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    # Reading all certificates takes longer than most of these tests, and none of them speaks https.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    # The client read these from the environment when it was imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", hub_cache)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    # A connection that is kept open would reach the server of another test.
    huggingface_hub.close_session()
    yield server
    huggingface_hub.close_session()
    server.stop()


class _Clock:
    """The time module, but sleeping only notes the seconds."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The Hub client retries without waiting; the seconds that it would have waited, in order."""
    clock = _Clock()
    for module in ("utils._http", "file_download", "hf_api"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", clock)
    return clock.slept
