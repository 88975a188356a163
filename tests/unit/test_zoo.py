"""Finding, verifying, fetching and loading checkpoints, with a tiny architecture and empty stores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from tiny import NAME, Tiny, edited, install, release, tiny

from tdsnn import hub, store, zoo
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.files import copy_atomic, sha256_of
from tdsnn.kernels.gpu import _ready as gpu
from tdsnn.manifest import write_release
from tdsnn.weights import CONFIG_FILE, WEIGHTS_FILE, read_checkpoint, save_checkpoint


@pytest.fixture
def embedded(project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an embedded checkpoint, the only one of the zoo."""
    return install(project, monkeypatch)


@pytest.fixture
def remote(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same model on a stand-in Hub instead of in the project; returns the folder of its files."""
    folder = embedded.rename(tmp_path / "remote")
    release(folder, hub_repo="someone/tiny", hub_commit="e" * 40)

    def fetch_file(
        repo: str,
        file: hub.RemoteFile,
        *,
        commit: str,
        target: Path,
        kind: str,
        progress: Callable[[int, int], None],
    ) -> None:
        assert (repo, commit, kind) == ("someone/tiny", "e" * 40, "model")
        assert sha256_of(folder / file.path) == file.sha256
        copy_atomic(folder / file.path, target)

    monkeypatch.setattr("tdsnn.hub.snapshot.fetch_file", fetch_file)
    monkeypatch.setattr("tdsnn.hub.snapshot.require_network", lambda what: None)
    return folder


def test_load_restores_everything(embedded: Path) -> None:
    original, loaded = tiny().eval(), zoo.load("tiny")
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    assert not loaded.training
    assert torch.equal(loaded(x), original(x))
    assert loaded.sheets.keys() == original.sheets.keys()
    assert loaded.sheets["conv"].metadata() == original.sheets["conv"].metadata()
    assert torch.equal(loaded.sheets["conv"].positions, original.sheets["conv"].positions)


def test_compile_is_asked_for_and_its_failure_on_a_gpu_is_said(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tiny] = []
    monkeypatch.setattr(Tiny, "compile_operators", lambda model: asked.append(model))
    zoo.load("tiny")
    assert asked == []
    model = zoo.load("tiny", compile=True)
    assert asked == [model]
    monkeypatch.setattr("tdsnn.runtime.choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(gpu, "ready", lambda device: gpu.Readiness(False, "a reason"))
    with pytest.warns(UserWarning, match="do not run here: a reason"):
        other = zoo.load("tiny", compile=True)
    assert asked == [model, other]


def test_embedded_needs_no_network(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.hub.snapshot.fetch_file", None)
    assert store.available("tiny") == "embedded"
    location = store.locate("tiny")
    assert (location.name, location.folder, location.source) == (NAME, embedded, "embedded")
    assert store.download("tiny") == location


def test_hub_then_cache(remote: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.available("tiny") == "hub"
    first = store.locate("tiny")
    assert first.source == "hub"
    assert cache in first.folder.parents
    monkeypatch.setattr("tdsnn.hub.snapshot.fetch_file", None)
    assert store.available("tiny") == "cache"
    assert store.locate("tiny") == replace(first, source="cache")
    assert zoo.load("tiny").architecture == "tiny"


def test_a_new_release_does_not_meet_old_files(remote: Path) -> None:
    old = store.locate("tiny").folder
    model = tiny()
    model.conv.weight.data += 1
    zoo.save(model, remote, name=NAME, dataset="digits")
    release(remote, hub_repo="someone/tiny", hub_commit="e" * 40)
    new = store.locate("tiny")
    assert new.source == "hub"
    assert new.folder != old
    assert torch.equal(zoo.load("tiny").conv.weight, model.conv.weight)


def test_explicit_path(embedded: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    for name in (copy, str(copy)):
        location = store.locate(name)
        assert (location.name, location.source, location.files) == (NAME, "path", ())
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
    embedded: Path, damage: Callable[[Path], None], word: str, name: str
) -> None:
    expected = sha256_of(embedded / name)
    damage(embedded / name)
    found = sha256_of(embedded / name)
    with pytest.raises(IntegrityError, match=word) as caught:
        zoo.load("tiny")
    assert str(embedded / name) in caught.value.message
    assert expected in caught.value.message
    assert found in caught.value.message
    assert "reinstall" in caught.value.hint
    assert sha256_of(embedded / name) == found


def test_missing_embedded_file(embedded: Path) -> None:
    (embedded / WEIGHTS_FILE).unlink()
    with pytest.raises(IntegrityError, match=f"{WEIGHTS_FILE}' is missing"):
        store.locate("tiny")


def test_damaged_cache_is_kept_aside_and_fetched_anew(remote: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = store.locate("tiny").folder
    flip_last_byte(folder / WEIGHTS_FILE)
    damaged = (folder / WEIGHTS_FILE).read_bytes()
    location = store.locate("tiny")
    assert (location.folder, location.source) == (folder, "hub")
    assert f"{folder / WEIGHTS_FILE} differs from its release: kept as" in caplog.text
    assert (folder / f"{WEIGHTS_FILE}.corrupt").read_bytes() == damaged
    assert store.locate("tiny").source == "cache"
    assert isinstance(zoo.load("tiny"), Tiny)


def test_damaged_path_is_left_alone(embedded: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    cut(copy / WEIGHTS_FILE)
    before = sorted(copy.iterdir())
    with pytest.raises(IntegrityError, match="truncated") as caught:
        zoo.load(copy)
    assert "nothing in it was changed" in caught.value.hint
    assert sorted(copy.iterdir()) == before


def test_download_to_folder(embedded: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    location = store.download("tiny", to=target)
    assert location.folder == target
    assert {path.name for path in target.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    assert isinstance(zoo.load(target), Tiny)
    assert store.download("tiny", to=target) == location, "a second time is fine"
    cut(target / WEIGHTS_FILE)
    with pytest.raises(UsageError, match="is not the file of tiny"):
        store.download("tiny", to=target)


def test_download_takes_zoo_entries_only(embedded: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        store.download(str(embedded), to=tmp_path / "copy")


def test_nothing_released(embedded: Path, project: Path) -> None:
    (project / "zoo" / "releases" / f"{NAME}.json").unlink()
    assert store.available("tiny") is None
    with pytest.raises(MissingError, match=r"No weights of 'tiny\.digits' were released") as caught:
        zoo.load("tiny")
    assert caught.value.hint == f"Train them: tdsnn-zoo train {NAME}"


def test_release_without_any_place(embedded: Path) -> None:
    shutil.rmtree(embedded)
    assert store.available("tiny") is None
    with pytest.raises(MissingError, match="neither embedded, nor cached, nor on a Hub"):
        zoo.load("tiny")


def test_release_must_list_both_files(embedded: Path) -> None:
    listed = release(embedded)
    write_release(structs.replace(listed, files=listed.files[:1]))
    with pytest.raises(IntegrityError, match=f"does not list {WEIGHTS_FILE}"):
        zoo.load("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arguments": {"hidden": 4}}, "'conv.weight' .* needs"),
        ({"arguments": {"depth": 4}}, "unknown key 'arguments.depth'"),
        ({"arguments": {"hidden": "three"}}, "a whole number for 'arguments.hidden', not 'three'"),
        ({"arguments": {"hidden": -1}}, "does not fit tiny: "),
        ({"arguments": {}}, "lacks the key 'arguments.hidden'"),
        ({"architecture": "tinny"}, "no architecture called 'tinny'"),
        ({"timesteps": 2}, "has 2 time steps, its arguments 1"),
        ({"sheets": {"conv": {"shape": [3, 2, 2]}}}, "lacks the key 'sheets.conv."),
    ],
)
def test_config_that_does_not_fit(
    embedded: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(embedded, tmp_path / "copy")
    path = folder / CONFIG_FILE
    path.write_text(edited(path.read_text(), **change))
    with pytest.raises(IntegrityError, match=message):
        zoo.load(folder)


def test_a_changed_config_is_not_the_entry_any_more(embedded: Path) -> None:
    """Weights say little of what they do without the arguments beside them."""
    path = embedded / CONFIG_FILE
    changed = path.read_text().replace('"size_mm": 2.0', '"size_mm": 2.5')
    assert changed != path.read_text()
    path.write_text(changed)
    for name in ("tiny", embedded):
        with pytest.raises(IntegrityError, match=f"{CONFIG_FILE}' is altered"):
            zoo.load(name)


def test_sheet_of_an_unknown_layer(embedded: Path, tmp_path: Path) -> None:
    shutil.copytree(embedded, tmp_path / "other")
    checkpoint = read_checkpoint(embedded)
    save_checkpoint(
        tmp_path / "other",
        state=checkpoint.state,
        positions={"norm": checkpoint.positions["conv"]},
        config=structs.replace(checkpoint.config, sheets={"norm": checkpoint.config.sheets["conv"]}),
    )
    with pytest.raises(IntegrityError, match="sheet for 'norm', which tiny does not have"):
        zoo.load(tmp_path / "other")


def test_unknown_device(embedded: Path) -> None:
    with pytest.raises(UsageError, match="device"):
        zoo.load("tiny", device="abacus")
