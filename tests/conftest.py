"""Keeps every test away from the user's caches and from the network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# The Hub client reads these when it is imported, so they are set before any test module is.
_HOME = tempfile.TemporaryDirectory(prefix="tdsnn-tests-")
os.environ.update(
    HF_HOME=_HOME.name,
    HF_HUB_CACHE=str(Path(_HOME.name) / "hub"),
    HF_ENDPOINT="http://127.0.0.1:9",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",
    NO_PROXY="127.0.0.1,localhost",
    TDSNN_CACHE=str(Path(_HOME.name) / "tdsnn"),
)
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TDSNN_RUNS"):
    os.environ.pop(_name, None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test; the others share one for the session, so that data is decoded once."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TDSNN_CACHE", str(folder))
    return folder


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
