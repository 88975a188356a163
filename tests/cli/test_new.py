"""``new``: manifests of one's own, begun from another entry's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import run

from tdsnn.manifest import entry_and_seed, list_models, resolve
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
    ],
)
def test_what_cannot_be_begun_writes_nothing(
    lab: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("new", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list((lab / "models").iterdir())


@pytest.mark.parametrize("origin", sorted({entry_and_seed(name)[0] for name in list_models()}))
def test_every_entry_can_be_begun_from(lab: Path, origin: str) -> None:
    assert run("new", "ours.digits", "--from", origin) == 0
    made = resolve("ours.digits")
    assert resolve(made.twin).twin in ("ours.digits", made.twin)
