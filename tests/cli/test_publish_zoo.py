"""The embedded models by way of an empty Hub into an empty cache: the same files and the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import run
from hub_server import HubServer

from tdsnn import paths, store
from tdsnn.data._base import load_split
from tdsnn.errors import MissingError
from tdsnn.kernels._library import library
from tdsnn.manifest import load_release

MODELS = ("sresnet18.fashion_mnist", "tsresnet18.fashion_mnist")
BENCH = ("bench", "tsresnet18", "--n", "4", "--attack", "pgd:steps=2", "--eps", "1")


@pytest.fixture
def zoo_copy(
    tmp_path: Path, hub_server: HubServer, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The project's zoo and cards, to be written to; somebody who may publish; and an empty cache."""
    try:
        load_split("fashion_mnist", "test")
    except MissingError as error:
        pytest.skip(error.message)
    monkeypatch.setattr("tdsnn.publish.gates.SAMPLE", 20)
    monkeypatch.setattr("tdsnn.benchmark.api.COMPILE_FROM", 0)
    library()  # from the cache that the tests share, before it is an empty one
    root = tmp_path / "project"
    for part in ("zoo", "cards"):
        shutil.copytree(paths.bundled(part), root / part, ignore=_other_checkpoints)
    (root / "benchmarks").mkdir()
    shutil.copytree(paths.bundled("benchmarks", "results"), root / "benchmarks" / "results")
    for path in (root / "zoo" / "releases").iterdir():
        if path.stem not in MODELS:  # a pair is enough
            path.unlink()
    monkeypatch.setattr("tdsnn.paths.bundled", root.joinpath)
    shared = paths.cache_dir()
    monkeypatch.setenv("TDSNN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data").symlink_to(shared / "data")
    monkeypatch.setenv("HF_TOKEN", "hf_write_secret")
    return root


def _other_checkpoints(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder).name == "checkpoints" and name not in MODELS]


def numbers(capsys: pytest.CaptureFixture[str], out: Path) -> Any:
    """What a benchmark of the pair gives, without what may differ between equal runs."""
    capsys.readouterr()
    assert run(*BENCH, "--out", str(out), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    provenance = document.pop("provenance")
    return set(provenance["sources"].values()), document


@pytest.mark.data
@pytest.mark.slow
def test_the_same_numbers_by_way_of_a_hub(
    zoo_copy: Path, hub_server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, before = numbers(capsys, tmp_path / "before")
    assert sources == {"embedded"}
    assert run("publish", "--all", "--repo", "alice") == 0
    assert "passed: stored accuracy, 20 images" in capsys.readouterr().err
    heads = {name: hub_server.head(f"alice/{name}") for name in MODELS}
    for name in MODELS:
        assert ".eval_results/fashion_mnist.yaml" in hub_server.files(f"alice/{name}")
        assert store.available(name) == "embedded"

    shutil.rmtree(zoo_copy / "zoo" / "checkpoints")
    assert [store.available(name) for name in MODELS] == ["hub", "hub"]
    for name in MODELS:
        assert run("download", name) == 0
        release = load_release(name)
        assert release is not None
        assert release.hub_commit == heads[name]
    sources, after = numbers(capsys, tmp_path / "after")
    assert sources == {"cache"}
    assert after == before

    assert run("publish", "--all", "--repo", "alice") == 0
    assert capsys.readouterr().err.count("no commit was made") == len(MODELS)
    assert {name: hub_server.head(f"alice/{name}") for name in MODELS} == heads
