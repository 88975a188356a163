"""Finding, verifying, fetching and loading checkpoints, with a tiny architecture and empty stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tdsnn import hub, zoo
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.files import sha256_of
from tdsnn.manifest import write_release
from tdsnn.models._base import MODELS, Model
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.types import FileRecord, Release
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE

NAME = "tiny.digits"
MANIFEST = """
summary = "A net for tests."
default = true
twin = "tiny.digits"
[model]
architecture = "tiny"
arguments = {hidden = 3}
[data]
name = "digits"
"""


class Tiny(Model):
    """One convolution, normalised, summed over the image."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__(
            architecture="tiny",
            arguments={"hidden": hidden},
            timesteps=1,
            num_classes=hidden,
            in_channels=1,
            mean=[0.0],
            std=[1.0],
            sheet_sizes_mm={"conv": 2.0},
        )
        self.conv = nn.Conv2d(1, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)

    def unroll(self, x: Tensor, timesteps: int) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3)).expand(timesteps, -1, -1)


def tiny() -> Tiny:
    torch.manual_seed(0)
    model = Tiny(hidden=3)
    model.norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    model.sheets = {
        "conv": CorticalSheet.retinotopic("conv", (3, 2, 2), size_mm=2.0, first_height=2, seed=0),
    }
    return model


def publish(folder: Path, **hub_fields: str) -> Release:
    records = tuple(
        FileRecord(path=name, size=(folder / name).stat().st_size, sha256=sha256_of(folder / name))
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    )
    release = Release(name=NAME, files=records, metrics={}, provenance={}, **hub_fields)
    write_release(release)
    return release


@pytest.fixture
def store(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the manifest and an embedded checkpoint of a tiny model; returns the checkpoint."""
    monkeypatch.setattr(type(MODELS), "load", lambda registry, name: {"tiny": Tiny}[name])
    (project / "zoo" / "models" / f"{NAME}.toml").write_text(MANIFEST)
    folder = project / "zoo" / "checkpoints" / NAME
    zoo.save(tiny(), folder, name=NAME, dataset="digits")
    publish(folder)
    return folder


@pytest.fixture
def remote(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same model on a stand-in Hub instead of in the project; returns the folder of its files."""
    folder = store.rename(tmp_path / "remote")
    publish(folder, hub_repo="someone/tiny", hub_commit="e" * 40)

    def fetch_file(repo: str, filename: str, *, commit: str, sha256: str, size: int) -> Path:
        assert (repo, commit) == ("someone/tiny", "e" * 40)
        assert sha256_of(folder / filename) == sha256
        return folder / filename

    monkeypatch.setattr(hub, "fetch_file", fetch_file)
    return folder


def test_load_restores_everything(store: Path) -> None:
    original, loaded = tiny().eval(), zoo.load("tiny")
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    assert not loaded.training
    assert torch.equal(loaded(x), original(x))
    assert loaded.sheets.keys() == original.sheets.keys()
    assert loaded.sheets["conv"].metadata() == original.sheets["conv"].metadata()
    assert torch.equal(loaded.sheets["conv"].positions, original.sheets["conv"].positions)


def test_compile_is_asked_for_and_for_the_cpu_only(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Model] = []
    monkeypatch.setattr(Tiny, "compile_operators", lambda model: asked.append(model))
    zoo.load("tiny")
    assert asked == []
    model = zoo.load("tiny", compile=True)
    assert asked == [model]
    monkeypatch.setattr("tdsnn.runtime.choose_device", lambda name: torch.device("meta"))
    zoo.load("tiny", compile=True)
    assert asked == [model]


def test_embedded_needs_no_network(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "fetch_file", None)
    assert zoo.available("tiny") == "embedded"
    location = zoo.locate("tiny")
    assert (location.name, location.folder, location.source) == (NAME, store, "embedded")
    assert zoo.download("tiny") == location


def test_hub_then_cache(remote: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo.available("tiny") == "hub"
    first = zoo.locate("tiny")
    assert first.source == "hub"
    assert cache in first.folder.parents
    monkeypatch.setattr(hub, "fetch_file", None)
    assert zoo.available("tiny") == "cache"
    assert zoo.locate("tiny") == replace(first, source="cache")
    assert zoo.load("tiny").architecture == "tiny"


def test_a_new_release_does_not_meet_old_files(remote: Path) -> None:
    old = zoo.locate("tiny").folder
    model = tiny()
    model.conv.weight.data += 1
    zoo.save(model, remote, name=NAME, dataset="digits")
    publish(remote, hub_repo="someone/tiny", hub_commit="e" * 40)
    new = zoo.locate("tiny")
    assert new.source == "hub"
    assert new.folder != old
    assert torch.equal(zoo.load("tiny").conv.weight, model.conv.weight)


def test_explicit_path(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    for name in (copy, str(copy)):
        location = zoo.locate(name)
        assert (location.name, location.source, location.release) == (NAME, "path", None)
    assert isinstance(zoo.load(copy), Tiny)
    for wrong in (tmp_path / "nowhere", copy / WEIGHTS_FILE):
        with pytest.raises(UsageError, match="no checkpoint folder") as caught:
            zoo.load(wrong)
        assert f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE}" in caught.value.hint


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(("damage", "word"), [(flip_last_byte, "altered"), (cut, "truncated")])
@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_damaged_embedded_file_is_left_alone(
    store: Path, damage: Callable[[Path], None], word: str, name: str
) -> None:
    expected = sha256_of(store / name)
    damage(store / name)
    found = sha256_of(store / name)
    with pytest.raises(IntegrityError, match=word) as caught:
        zoo.load("tiny")
    assert str(store / name) in caught.value.message
    assert expected in caught.value.message
    assert found in caught.value.message
    assert "reinstall" in caught.value.hint
    assert sha256_of(store / name) == found


def test_missing_embedded_file(store: Path) -> None:
    (store / WEIGHTS_FILE).unlink()
    with pytest.raises(IntegrityError, match=f"{WEIGHTS_FILE}' is missing"):
        zoo.locate("tiny")


def test_damaged_cache_is_kept_aside_and_fetched_anew(remote: Path) -> None:
    folder = zoo.locate("tiny").folder
    flip_last_byte(folder / WEIGHTS_FILE)
    damaged = (folder / WEIGHTS_FILE).read_bytes()
    with pytest.raises(IntegrityError, match="altered") as caught:
        zoo.load("tiny")
    assert f"tdsnn-zoo download {NAME}" in caught.value.hint
    assert (folder / f"{WEIGHTS_FILE}.corrupt").read_bytes() == damaged
    assert not (folder / WEIGHTS_FILE).exists()
    assert zoo.locate("tiny").source == "hub"
    assert isinstance(zoo.load("tiny"), Tiny)


def test_damaged_path_is_left_alone(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    cut(copy / WEIGHTS_FILE)
    before = sorted(copy.iterdir())
    with pytest.raises(IntegrityError, match="truncated") as caught:
        zoo.load(copy)
    assert "nothing in it was changed" in caught.value.hint
    assert sorted(copy.iterdir()) == before


def test_download_to_folder(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    location = zoo.download("tiny", to=target)
    assert location.folder == target
    assert {path.name for path in target.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    assert isinstance(zoo.load(target), Tiny)
    assert zoo.download("tiny", to=target) == location, "a second time is fine"
    cut(target / WEIGHTS_FILE)
    with pytest.raises(UsageError, match="is not the file of tiny"):
        zoo.download("tiny", to=target)


def test_download_takes_zoo_entries_only(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        zoo.download(str(store), to=tmp_path / "copy")


def test_nothing_released(store: Path, project: Path) -> None:
    (project / "zoo" / "releases" / f"{NAME}.json").unlink()
    assert zoo.available("tiny") is None
    with pytest.raises(MissingError, match=r"No weights of 'tiny\.digits' were released") as caught:
        zoo.load("tiny")
    assert caught.value.hint == f"Train them: tdsnn-zoo train {NAME}"


def test_release_without_any_place(store: Path) -> None:
    shutil.rmtree(store)
    assert zoo.available("tiny") is None
    with pytest.raises(MissingError, match="neither embedded, nor cached, nor on a Hub"):
        zoo.load("tiny")


def test_release_must_list_both_files(store: Path) -> None:
    release = publish(store)
    write_release(replace(release, files=release.files[:1]))
    with pytest.raises(IntegrityError, match=f"does not list {WEIGHTS_FILE}"):
        zoo.load("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": {"hidden": 4}}, "'conv.weight' .* needs"),
        ({"arguments": {"depth": 4}}, "does not fit tiny"),
        ({"sheets": {"conv": {"shape": [3, 2, 2]}}}, "describes the sheet of 'conv' badly"),
    ],
)
def test_config_that_does_not_fit(store: Path, change: dict[str, Any], message: str) -> None:
    path = store / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(IntegrityError, match=message):
        zoo.load(store)


def test_sheet_of_an_unknown_layer(store: Path) -> None:
    model = tiny()
    model.sheets = {"norm": model.sheets["conv"]}
    zoo.save(model, store, name=NAME, dataset="digits")
    with pytest.raises(IntegrityError, match="sheet for 'norm', which tiny does not have"):
        zoo.load(store)


def test_unknown_device(store: Path) -> None:
    with pytest.raises(UsageError, match="device"):
        zoo.load("tiny", device="abacus")
