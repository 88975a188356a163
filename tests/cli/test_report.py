"""``report`` by exit code, output and files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tdsnn import paths
from tdsnn.cli.main import main
from tdsnn.files import sha256_of
from tdsnn.manifest import load_release

TOPO, TWIN = "tsresnet18.fashion_mnist", "sresnet18.fashion_mnist"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *arguments])
    code = caught.value.code
    return code if isinstance(code, int) else 0


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def zoo_copy(project: Path) -> Path:
    """The real zoo and templates, without results."""
    checkout = Path(paths.__file__).resolve().parents[1]
    for part in ("zoo", "cards"):
        shutil.copytree(checkout / part, project / part, dirs_exist_ok=True)
    shutil.rmtree(project / "cards" / "generated")
    return project


def files(project: Path, name: str) -> set[str]:
    return {
        str(project / "cards" / "generated" / f"{name}.md"),
        str(project / "zoo" / "checkpoints" / name / "README.md"),
        str(project / "zoo" / "releases" / f"{name}.json"),
    }


def test_all_cards_are_written_and_named(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = set(answer(capsys, "cards")["written"])
    assert files(zoo_copy, TOPO) | files(zoo_copy, TWIN) <= written
    assert all(Path(path).is_file() for path in written)
    release = load_release(TOPO)
    assert release is not None
    readme = next(file for file in release.files if file.path == "README.md")
    assert readme.sha256 == sha256_of(zoo_copy / "zoo" / "checkpoints" / TOPO / "README.md")


def test_a_bare_name_is_enough(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cards", "tsresnet18") == 0
    captured = capsys.readouterr()
    assert set(captured.out.split()) == files(zoo_copy, TOPO)


def test_check_writes_nothing_and_names_what_is_stale(
    zoo_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cards") == 0
    capsys.readouterr()
    assert run("cards", "--check") == 0
    assert capsys.readouterr().out == ""
    readme = zoo_copy / "zoo" / "checkpoints" / TOPO / "README.md"
    readme.write_text("old", encoding="utf-8")
    (zoo_copy / "cards" / "generated" / f"{TWIN}.md").unlink()
    stale = {str(readme), str(zoo_copy / "cards" / "generated" / f"{TWIN}.md")}
    assert run("cards", "--check") == 1
    captured = capsys.readouterr()
    assert set(captured.out.split()) == stale
    assert "2 files are not what the documents give today" in captured.err
    assert "tdsnn-zoo report cards" in captured.err
    assert readme.read_text(encoding="utf-8") == "old"
    assert run("cards", "--check", "--json") == 1
    assert set(json.loads(capsys.readouterr().out)["stale"]) == stale


def test_check_finds_a_release_with_another_checksum(
    zoo_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cards") == 0
    path = zoo_copy / "zoo" / "releases" / f"{TOPO}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    next(file for file in document["files"] if file["path"] == "README.md")["sha256"] = "0" * 64
    path.write_text(json.dumps(document), encoding="utf-8")
    capsys.readouterr()
    assert run("cards", "--check") == 1
    assert capsys.readouterr().out.split() == [str(path)]


def test_what_was_not_released_has_no_card(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (zoo_copy / "zoo" / "releases" / f"{TOPO}.json").unlink()
    assert run("cards", TOPO) == 4
    assert f"tdsnn-zoo train {TOPO}" in capsys.readouterr().err
    assert f"{TOPO}.md" not in str(answer(capsys, "cards"))


def test_an_unknown_name_is_a_usage_error(zoo_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cards", "tsresnet81") == 2
    assert "Did you mean" in capsys.readouterr().err
