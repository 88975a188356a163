"""Which models a benchmark loads, and how often it reads their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tdsnn import zoo
from tdsnn.bench.names import with_twins
from tdsnn.bench.subjects import load_subjects
from tdsnn.files import sha256_of
from tdsnn.manifest import write_release
from tdsnn.models.sresnet18 import sresnet18
from tdsnn.schema import FileRecord, Release
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, read_checkpoint

TOPO, TWIN = "tsresnet18.toy", "sresnet18.toy"
MANIFEST = """
summary = "A test model."
default = true
twin = "{twin}"
[model]
architecture = "sresnet18"
[data]
name = "toy"
[topography]
alpha = {alpha}
"""


@pytest.fixture
def checkpoint(project: Path) -> Path:
    """A zoo with a topographic model, embedded, and its twin, unreleased; returns the checkpoint."""
    for name, twin, alpha in ((TOPO, TWIN, 0.1), (TWIN, TOPO, 0.0)):
        text = MANIFEST.format(twin=twin, alpha=alpha)
        (project / "zoo" / "models" / f"{name}.toml").write_text(text)
    folder = project / "zoo" / "checkpoints" / TOPO
    zoo.save(sresnet18(width=4, timesteps=2), folder, name=TOPO, dataset="toy")
    records = tuple(
        FileRecord(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    )
    write_release(Release(name=TOPO, files=records, metrics={}, provenance={}))
    return folder


def test_a_topographic_entry_brings_its_twin_once(checkpoint: Path) -> None:
    assert with_twins(["tsresnet18"]) == (TOPO, TWIN)
    assert with_twins(["sresnet18", TOPO, str(checkpoint)]) == (TWIN, TOPO, str(checkpoint))


def test_each_checkpoint_is_read_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, hashed = [], []

    def reading(folder: Path) -> Checkpoint:
        read.append(folder)
        return read_checkpoint(folder)

    def hashing(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    monkeypatch.setattr("tdsnn.models._checkpoint.read_checkpoint", reading)
    for module in ("files", "store"):
        monkeypatch.setattr(f"tdsnn.{module}.sha256_of", hashing)
    subjects = load_subjects([TOPO, str(copy)], device=torch.device("cpu")).subjects
    assert read == [checkpoint, copy]
    # Against the release, and against the pin in config.json before the tensors are taken from the file.
    assert hashed.count(checkpoint / WEIGHTS_FILE) == 2
    assert {subject.checkpoint_sha256 for subject in subjects} == {sha256_of(checkpoint / WEIGHTS_FILE)}
    assert [(subject.source, subject.twin) for subject in subjects] == [("embedded", TWIN), ("path", None)]
