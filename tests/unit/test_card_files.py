"""Where model cards are written, and what pins them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from card_zoo import DATASET, LAYER, RELEASES, TOPO, build_pair, card, document, epoch, row
from msgspec.structs import replace

from tdsnn import zoo
from tdsnn.files import sha256_of
from tdsnn.manifest import load_release, resolve, write_release
from tdsnn.publish import release as releases
from tdsnn.report import cards
from tdsnn.schema import FileRecord, Release
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.sheets import build_sheets
from tdsnn.training.state import OUTCOME
from tdsnn.verdicts import CleanVerdicts
from tests.networks import network

CLEAN = CleanVerdicts(weights_sha256="a" * 64, data_digest="d" * 64, scores=np.array([True]))


@pytest.fixture
def pair(project: Path) -> Path:
    return build_pair(project)


def test_figures_are_linked_and_pinned(pair: Path) -> None:
    folder = pair / "zoo" / "checkpoints" / TOPO
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "layer1.0 maps.png").write_bytes(b"picture")
    release = load_release(TOPO)
    assert release is not None
    gone = FileRecord(path="figures/gone.png", size=1, sha256="d" * 64)
    written = cards.write(resolve(TOPO), replace(release, files=(*release.files, gone)), DATASET)
    assert written == load_release(TOPO)
    assert [file.path for file in written.files] == [
        "README.md",
        "figures/layer1.0 maps.png",
        "model.safetensors",
    ]
    readme, picture, _ = written.files
    assert picture.sha256 == sha256_of(folder / "figures" / "layer1.0 maps.png")
    assert (readme.size, readme.sha256) == (
        (folder / "README.md").stat().st_size,
        sha256_of(folder / "README.md"),
    )
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "![layer1.0 maps](figures/layer1.0%20maps.png)" in text
    assert readme.sha256 not in text
    copy = (pair / "cards" / "generated" / f"{TOPO}.md").read_text(encoding="utf-8")
    assert copy == text.replace("](figures/", f"](../../zoo/checkpoints/{TOPO}/figures/")
    assert cards.write(resolve(TOPO), written, DATASET) == written, "writing twice changes nothing"


def test_an_entry_that_is_not_embedded_has_a_copy_without_figures(pair: Path) -> None:
    release = load_release(TOPO)
    assert release is not None
    picture = FileRecord(path="figures/maps.png", size=1, sha256="d" * 64)
    release = replace(release, files=(*release.files, picture))
    assert cards.write(resolve(TOPO), release, DATASET) == release
    assert "maps.png" not in (pair / "cards" / "generated" / f"{TOPO}.md").read_text(encoding="utf-8")
    assert not (pair / "zoo" / "checkpoints" / TOPO).exists()
    assert "figures/maps.png" in cards.render(resolve(TOPO), release, DATASET).text


def test_a_published_model_keeps_its_card(pair: Path) -> None:
    release = load_release(TOPO)
    assert release is not None
    published = replace(release, hub_repo="someone/topo", hub_commit="e" * 40)
    assert cards.render(resolve(TOPO), published, DATASET) == card()


def test_a_release_in_memory_gives_the_card_of_its_file(pair: Path) -> None:
    logged = {"zeta": 1.0, "alpha": 2.0, "gradient_shares": {"task": 0.75, "L_L": 0.25}}
    release = RELEASES[TOPO]
    release = replace(
        release, provenance={"epochs": [epoch(0, **logged)], "data_digests": {"b": "1", "a": "2"}}
    )
    write_release(release)
    assert cards.render(resolve(TOPO), release, DATASET) == card()
    assert row(card().text, "share of the gradient, `L_L`")[:2] == ["25.0 %", "25.0 %"]


def _checkpoint(folder: Path, name: str) -> Release:
    """A small real network in a folder, and its release."""
    model = network("sresnet18", in_channels=1, mean=[0.5], std=[0.3])
    model.sheets = build_sheets({LAYER: (8, 16, 16)}, [SheetSpec(LAYER, 2.4)], seed=0)
    zoo.save(model, folder, name=name, dataset="toys")
    files = tuple(
        FileRecord(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
    )
    return replace(RELEASES[name], files=files)


def test_the_snippet_runs(pair: Path) -> None:
    release = _checkpoint(pair / "zoo" / "checkpoints" / TOPO, TOPO)
    cards.write(resolve(TOPO), release, DATASET)
    (snippet,) = re.findall(r"```python\n(.*?)```", card().text, re.DOTALL)
    found: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(snippet, "card", "exec"), found)
    assert found["classes"].shape == (8,)
    assert found["positions"].shape == (8 * 16 * 16, 2)
    assert isinstance(found["logits"], torch.Tensor)


def test_a_registered_run_has_the_card(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    release = _checkpoint(run / releases.CHECKPOINT, TOPO)
    outcome = {"name": TOPO, "environment": {"python": "3.11"}, "data_digests": {}}
    document(run / OUTCOME, outcome)
    log = "".join(json.dumps(line) + "\n" for line in release.provenance["epochs"])
    (run / releases.LOG).write_text(log, encoding="utf-8")
    toys = dataclasses.replace(releases.DATASETS.load("digits"), title="Toys", shape=(1, 16, 16))
    monkeypatch.setattr(releases, "DATASETS", SimpleNamespace(load=lambda name: toys))
    monkeypatch.setattr(releases, "load_split", lambda *names: None)
    monkeypatch.setattr(releases, "check_settings", lambda *parts: None)
    monkeypatch.setattr(releases, "_measure", lambda *parts, results: (release.metrics, CLEAN))
    written = releases.register_run(run, force=True)
    folder = pair / "zoo" / "checkpoints" / TOPO
    assert written == load_release(TOPO)
    assert {file.path: file.sha256 for file in written.files} == {
        path.name: sha256_of(path) for path in folder.iterdir()
    }
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert row(text, "accuracy without attack, %")[0] == "91.25 [90.70, 91.75]"
    current = cards.render(resolve(TOPO), written, replace(DATASET, repo=None))
    assert current.text == text
