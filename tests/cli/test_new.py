"""``new``: manifests of one's own, begun from another entry's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run

from tdsnn.manifest import entry_and_seed, list_models, manifest_path, resolve
from tdsnn.training.recipe import override

ORIGIN, TWIN = "tsresnet18.fashion_mnist", "sresnet18.fashion_mnist"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("TDSNN_ZOO", str(tmp_path))
    return tmp_path


def test_an_entry_and_its_twin_with_the_settings_of_others(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("new", "ours.fashion_mnist", "--from", "tsresnet18", "--json") == 0
    paths = json.loads(capsys.readouterr().out)["written"]
    assert paths == [str(lab / "models" / f"{one}.fashion_mnist.toml") for one in ("ours", "ours-twin")]
    for name, twin, origin in (("ours", "ours-twin", ORIGIN), ("ours-twin", "ours", TWIN)):
        made, old = resolve(name), resolve(origin)
        assert made.twin == f"{twin}.fashion_mnist"
        assert (made.recipe, made.topography, made.arguments) == (old.recipe, old.topography, old.arguments)
        assert (made.summary, made.notes) == (f"Begun from {origin}.", "")
        assert old.notes, "which are about trials of that one"
        override(made, ["epochs=1"])
    assert resolve("tsresnet18").name == ORIGIN


def test_a_bare_name_that_others_use_is_not_taken(lab: Path) -> None:
    assert run("new", "tsresnet18.ours", "--from", "tsresnet18", "--twin", "sresnet18.ours") == 0
    assert resolve("tsresnet18").name == ORIGIN
    assert not resolve("tsresnet18.ours").default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ours.fashion_mnist", "--from", "nobody"), "no model called 'nobody'"),
        (("Ours", "--from", "tsresnet18"), "'Ours' cannot be the name of an entry"),
        (("../x.y", "--from", "tsresnet18"), "cannot be the name of an entry"),
        ((ORIGIN, "--from", "tsresnet18"), "an entry 'tsresnet18.fashion_mnist' already"),
        (("ours.x", "--from", "tsresnet18", "--twin", TWIN), "an entry 'sresnet18.fashion_mnist' already"),
        (("ours.x", "--from", "tsresnet18", "--twin", "ours.x"), "'ours.x' cannot be its own twin"),
        (("ours.x", "--from", "tsresnet18", "--twin", ""), "'' cannot be the name of an entry"),
        ((f"{'a' * 300}.x", "--from", "tsresnet18"), "cannot be the name of an entry"),
    ],
)
def test_what_cannot_be_begun_writes_nothing(
    lab: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("new", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((lab / "models").iterdir())


@pytest.mark.parametrize(("origin", "first"), [("tsresnet18", "ours-twin"), ("sresnet18", "ours")])
def test_the_one_that_arranges_the_others_sheets_is_to_be_trained_first(
    lab: Path, capsys: pytest.CaptureFixture[str], origin: str, first: str
) -> None:
    assert run("new", "ours.fashion_mnist", "--from", origin) == 0
    assert capsys.readouterr().err.endswith(f"then: tdsnn-zoo train {first}.fashion_mnist\n")


@pytest.mark.parametrize("origin", [name for name in list_models() if entry_and_seed(name)[1] == 0])
def test_every_entry_can_be_the_origin(lab: Path, origin: str) -> None:
    """Also where the twin of its twin is another entry."""
    assert run("new", "ours.fashion_mnist", "--from", origin) == 0
    made, twin, old = resolve("ours.fashion_mnist"), resolve("ours-twin.fashion_mnist"), resolve(origin)
    assert (made.twin, twin.twin) == (twin.name, made.name)
    assert made.topography == old.topography
    assert twin.topography == resolve(old.twin).topography


def test_another_seed_begins_from_the_manifest_that_it_shares(lab: Path) -> None:
    assert run("new", "ours.fashion_mnist", "--from", f"{ORIGIN}-s1") == 0
    assert resolve("ours.fashion_mnist-s1").recipe.seed == resolve(f"{ORIGIN}-s1").recipe.seed


def test_an_entry_without_another_twin(lab: Path) -> None:
    text = manifest_path(TWIN).read_text().replace(f'"{ORIGIN}"', '"alone.x"')
    (lab / "models" / "alone.x.toml").write_text(text)
    assert run("new", "ours.x", "--from", "alone.x") == 0
    assert resolve("ours.x").twin == "ours.x"
    assert not (lab / "models" / "ours-twin.x.toml").exists()


def test_a_zoo_folder_beside_an_installed_package(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tdsnn.paths.is_checkout", lambda: False)
    monkeypatch.setattr("tdsnn.cli.new.is_checkout", lambda: False)
    assert run("new", "ours.fashion_mnist", "--from", "tsresnet18") == 0
    monkeypatch.delenv("TDSNN_ZOO")
    assert run("new", "ours.fashion_mnist", "--from", "tsresnet18") == 2
    assert "belongs to the installed package" in " ".join(capsys.readouterr().err.split())


def test_data_that_is_not_what_the_name_says(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("new", "ours.cifar10", "--from", "tsresnet18") == 0
    assert "The data of ours.cifar10 is fashion_mnist still" in " ".join(capsys.readouterr().err.split())


def test_a_manifest_whose_twin_cannot_be_replaced(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = manifest_path(ORIGIN).read_text().replace("twin =", "'twin' =")
    (lab / "models" / "odd.x.toml").write_text(text)
    assert run("new", "ours.x", "--from", "odd.x") == 2
    assert "no line that says only its twin" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in (lab / "models").iterdir()] == ["odd.x.toml"]
