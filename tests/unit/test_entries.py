"""Which models a benchmark loads, and how often it reads their files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tdsnn import zoo
from tdsnn.benchmark.entries import load_entries
from tdsnn.benchmark.names import with_twins
from tdsnn.errors import UsageError
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
name = "{data}"
[topography]
alpha = {alpha}
[recipe]
epochs = {epochs}
{more}
"""


def _write(project: Path, name: str, **changes: Any) -> None:
    twin, alpha = (TWIN, 0.1) if name == TOPO else (TOPO, 0.0)
    values = {"twin": twin, "alpha": alpha, "data": "toy", "epochs": 3, "more": ""} | changes
    (project / "zoo" / "models" / f"{name}.toml").write_text(MANIFEST.format(**values))


def _release(project: Path, name: str, *, width: int = 4, dataset: str = "toy") -> Path:
    folder = project / "zoo" / "checkpoints" / name
    zoo.save(sresnet18(width=width, timesteps=2), folder, name=name, dataset=dataset)
    records = tuple(
        FileRecord(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    )
    write_release(Release(name=name, files=records, metrics={}, provenance={}))
    return folder


@pytest.fixture
def checkpoint(project: Path) -> Path:
    """A zoo with a topographic model, embedded, and its twin, unreleased; returns the checkpoint."""
    for name in (TOPO, TWIN):
        _write(project, name)
    return _release(project, TOPO)


@pytest.fixture
def elsewhere(checkpoint: Path, tmp_path: Path) -> str:
    """The same checkpoint, as somebody copied it out of the zoo."""
    return str(shutil.copytree(checkpoint, tmp_path / "copy"))


def _load(*names: str) -> dict[str, tuple[str | None, str | None]]:
    """Name to twin, and to why there is none."""
    twins = with_twins(names)
    entries = load_entries(tuple(twins), device=torch.device("cpu"), twins=twins).entries
    return {entry.name: (entry.twin, entry.alone) for entry in entries}


def test_a_topographic_entry_brings_its_twin_once(checkpoint: Path, project: Path) -> None:
    _release(project, TWIN)
    assert tuple(with_twins(["tsresnet18"])) == (TOPO, TWIN)
    assert tuple(with_twins(["sresnet18", TOPO, str(checkpoint)])) == (TWIN, TOPO, str(checkpoint))


def test_an_entry_says_whether_it_was_trained_under_attack(project: Path, tmp_path: Path) -> None:
    """Then survivors of strong attacks are nothing strange; so too where a checkpoint was copied to."""
    _write(project, TWIN)
    _write(project, TOPO, more="[recipe.adversarial]\neps_255 = 8")
    _release(project, TWIN)
    copy = str(shutil.copytree(_release(project, TOPO), tmp_path / "copy"))
    zoo.save(sresnet18(width=4, timesteps=2), tmp_path / "mine", name="mine", dataset="toy")
    names = (TOPO, TWIN, copy, str(tmp_path / "mine"))
    entries = load_entries(names, device=torch.device("cpu")).entries
    assert [entry.adversarially_trained for entry in entries] == [True, False, True, False]


def test_each_checkpoint_is_read_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, hashed = [], []

    def reading(folder: Path, *, known: FileRecord | None = None) -> Checkpoint:
        read.append(folder)
        return read_checkpoint(folder, known=known)

    def hashing(path: Path) -> str:
        hashed.append(path)
        return sha256_of(path)

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    monkeypatch.setattr("tdsnn.models._checkpoint.read_checkpoint", reading)
    for module in ("files", "store"):
        monkeypatch.setattr(f"tdsnn.{module}.sha256_of", hashing)
    entries = load_entries([TOPO, str(copy)], device=torch.device("cpu")).entries
    assert read == [checkpoint, copy]
    # Against the release, which is what config.json pins too; and against the latter alone.
    assert hashed.count(checkpoint / WEIGHTS_FILE) == hashed.count(copy / WEIGHTS_FILE) == 1
    assert {entry.checkpoint_sha256 for entry in entries} == {sha256_of(checkpoint / WEIGHTS_FILE)}
    assert [(entry.source, entry.twin) for entry in entries] == [("embedded", None), ("path", None)]


def test_a_topographic_checkpoint_at_a_path_brings_its_twin(elsewhere: str, project: Path) -> None:
    _release(project, TWIN)
    assert _load(elsewhere) == {elsewhere: (TWIN, None), TWIN: (None, None)}
    folder = str(project / "zoo" / "checkpoints" / TWIN)
    assert _load(folder) == {folder: (None, None)}


def test_a_checkpoint_whose_twin_was_not_released_says_so(elsewhere: str) -> None:
    ((twin, reason),) = _load(elsewhere).values()
    assert twin is None
    assert reason == f"The twin of {elsewhere}, {TWIN}, was not released, so it stands beside none."


@pytest.mark.parametrize(
    ("twin", "difference"),
    [({"width": 8}, "arguments"), ({"dataset": "other"}, "dataset (toy and other)")],
)
def test_a_checkpoint_that_the_zoos_twin_is_no_twin_of_says_so(
    elsewhere: str, project: Path, twin: dict[str, Any], difference: str
) -> None:
    _release(project, TWIN, **twin)
    ((name, reason),) = _load(elsewhere).values()
    assert name is None
    assert f"{TWIN} is no twin of {elsewhere}: they differ in {difference}" in str(reason)


def test_a_checkpoint_that_is_no_entry_of_the_zoo_says_so(checkpoint: Path, tmp_path: Path) -> None:
    zoo.save(sresnet18(width=4, timesteps=2), tmp_path / "mine", name="mine", dataset="toy")
    ((twin, reason),) = _load(str(tmp_path / "mine")).values()
    assert twin is None
    assert "('mine') is no entry of the zoo" in str(reason)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"epochs": 4}, r"recipe\.epochs \(3 and 4\)"),
        ({"data": "other"}, r"dataset \(toy and other\)"),
        ({"alpha": 0.2}, "a spatial loss shaped it too"),
    ],
)
def test_a_manifest_that_names_a_twin_of_another_recipe_is_refused(
    checkpoint: Path, elsewhere: str, project: Path, changes: dict[str, Any], difference: str
) -> None:
    _write(project, TWIN, **changes)
    for name in (TOPO, elsewhere):
        with pytest.raises(UsageError, match=f"{TWIN} is no twin of {TOPO}: .*{difference}") as caught:
            with_twins([name])
        assert caught.value.exit_code == 2
        assert caught.value.hint


def test_a_twin_of_another_width_is_refused_at_load(checkpoint: Path, project: Path) -> None:
    _release(project, TWIN, width=8)
    with pytest.raises(UsageError, match=f"{TWIN} is no twin of {TOPO}: they differ in arguments"):
        _load(TOPO)
