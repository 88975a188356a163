"""What holds for every manifest, release and embedded checkpoint of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import edited

from tdsnn import paths, store, verdicts, zoo
from tdsnn.files import sha256_of
from tdsnn.manifest import (
    complete,
    entry_and_seed,
    list_models,
    load_release,
    release_path,
    resolve,
    write_release,
)
from tdsnn.models._registry import MODELS
from tdsnn.registry import Registry
from tdsnn.schema import Topography
from tdsnn.topography.preparation import fresh_sheets
from tdsnn.training.recipe import override
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE, read_checkpoint

MODEL_NAMES = list_models()
EMBEDDED = sorted(
    folder.name
    for folder in paths.bundled("zoo", "checkpoints").glob("*")
    if (folder / "config.json").is_file()
)
RELEASED = sorted(path.stem for path in paths.bundled("zoo", "releases").glob("*.json"))
DATASETS: Registry[object] = Registry("dataset", "tdsnn.data", "tdsnn-zoo data list")


def test_the_zoo_is_not_empty() -> None:
    assert "tsresnet18.fashion_mnist" in MODEL_NAMES
    assert resolve("tsresnet18").name == "tsresnet18.fashion_mnist"
    assert resolve("sresnet18").name == "sresnet18.fashion_mnist"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_manifest_names_what_exists(name: str) -> None:
    manifest = resolve(name)
    assert manifest.summary
    assert manifest.architecture in MODELS.names()
    assert manifest.dataset in DATASETS.names()
    assert name.partition(".")[2].startswith(manifest.dataset), "a variant begins with its dataset"
    assert manifest.recipe.epochs > 0


@pytest.mark.parametrize("name", sorted({name.partition(".")[0] for name in MODEL_NAMES}))
def test_bare_name_has_one_default(name: str) -> None:
    assert resolve(name).name.partition(".")[0] == name


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_twin_differs_only_in_the_topographic_weights(name: str) -> None:
    model = resolve(name)
    twin = resolve(model.twin)
    assert twin.name == model.twin, "a twin is named in full"
    same = ("architecture", "arguments", "dataset", "recipe")
    assert [getattr(model, key) for key in same] == [getattr(twin, key) for key in same]
    # Of a spatial loss that has no weight, nothing but the sheets counts.
    sheets = ("sheet_seed", "unit_mm", "preparation", "attempts_per_unit")
    assert [getattr(model.topography, key) for key in sheets] == [
        getattr(twin.topography, key) for key in sheets
    ]
    if model.topographic:
        assert not twin.topographic, "a topographic model is shown beside one without a spatial loss"
        assert resolve(twin.twin).topographic or twin.twin == twin.name


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_training_would_take_the_manifest(name: str) -> None:
    manifest = resolve(name)
    checked = override(manifest, [])
    assert checked == complete(manifest)
    assert override(checked, []) == checked


@pytest.mark.parametrize("name", RELEASED)
def test_writing_a_release_again_gives_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = load_release(name)
    assert release is not None
    before = release_path(name).read_bytes()
    monkeypatch.setattr("tdsnn.manifest.release_path", lambda name: tmp_path / f"{name}.json")
    assert write_release(release).read_bytes() == before


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_manifest_builds(name: str) -> None:
    manifest = resolve(name)
    model = MODELS.load(manifest.architecture)(**manifest.arguments)
    assert model.architecture == manifest.architecture
    assert model.timesteps == manifest.arguments.get("timesteps", 1)


@pytest.mark.parametrize("name", RELEASED)
def test_release_belongs_to_a_manifest(name: str) -> None:
    assert name in MODEL_NAMES
    release = load_release(name)
    assert release is not None
    assert {"clean_accuracy", "parameters"} <= release.metrics.keys()
    judged = verdicts.read(release)
    if judged is not None:
        stated = release.metrics["clean_accuracy"]
        assert judged.scores.size == stated["n"]
        assert 100 * judged.scores.mean() == pytest.approx(stated["value"])
    if entry_and_seed(name)[1] == 0 or judged is None:
        assert store.available(name) is not None, "a release can be had from somewhere, or compared without"


def test_the_store_is_small() -> None:
    files = paths.bundled("zoo", "checkpoints").rglob("*")
    assert sum(path.stat().st_size for path in files if path.is_file()) <= store.LARGEST_STORE_BYTES


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_checkpoint(name: str) -> None:
    location = store.locate(name)
    assert location.source == "embedded"
    assert location.files
    listed = {record.path for record in location.files}
    present = {
        str(path.relative_to(location.folder)) for path in location.folder.rglob("*") if path.is_file()
    }
    assert present == listed, "an embedded folder holds the files of its release and nothing else"
    assert sum(record.size for record in location.files) <= store.LARGEST_EMBEDDED_BYTES

    manifest, config = resolve(name), read_checkpoint(location.folder).config
    assert (config.name, config.dataset) == (name, manifest.dataset)
    assert config.architecture == manifest.architecture

    model = zoo.load(name)
    assert not model.training
    assert set(model.sheets) == set(model.sheet_layers)
    release = load_release(name)
    assert release is not None
    assert sum(p.numel() for p in model.parameters()) == release.metrics["parameters"]["value"]
    rebuilt = MODELS.load(manifest.architecture)(**manifest.arguments)
    assert model.arguments == rebuilt.arguments, "config.json and manifest describe the same network"


@pytest.mark.parametrize("name", EMBEDDED)
def test_saving_an_embedded_model_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    location = store.locate(name)
    zoo.save(zoo.load(name), tmp_path, name=name, dataset=resolve(name).dataset)
    assert sha256_of(tmp_path / WEIGHTS_FILE) == sha256_of(location.folder / WEIGHTS_FILE)
    # Those of before config.json had a digest of itself get one.
    was = (location.folder / CONFIG_FILE).read_text(encoding="utf-8")
    assert json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8")) == json.loads(edited(was))


@pytest.mark.parametrize("name", ["tsresnet18", "sresnet18"])
def test_round_trip_of_a_fresh_zoo_model(name: str, tmp_path: Path) -> None:
    manifest = resolve(name)
    torch.manual_seed(0)
    model = MODELS.load(manifest.architecture)(**manifest.arguments).eval()
    model.sheets = fresh_sheets(model, model.sheet_specs.values(), Topography(), image_shape=(1, 28, 28))
    zoo.save(model, tmp_path, name=manifest.name, dataset=manifest.dataset)
    loaded = zoo.load(tmp_path)
    x = torch.rand(2, model.in_channels, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    for layer, sheet in model.sheets.items():
        assert torch.equal(loaded.sheets[layer].positions, sheet.positions)
