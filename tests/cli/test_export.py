"""``tdsnn-zoo export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from command import run

pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def _zoo(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.install(project, monkeypatch)
    monkeypatch.setattr(tiny.Tiny, "compile_operators", lambda model: False)
    monkeypatch.setattr("tdsnn.exporting.latency._ROUNDS", 2)


def test_a_verified_export_shows_tables_and_says_where_things_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "tiny.onnx"
    assert run("export", "tiny", "--format", "onnx", "--out", str(out), "--verify", "--n", "20") == 0
    shown = capsys.readouterr()
    assert "other class chosen" in shown.out
    assert "Time of one batch" in shown.out
    assert "flipped" not in shown.out, "a network without spikes has no table of them"
    assert f"Certificate: {out}.certificate.json" in shown.err
    assert f"Written and read back: {out}" in shown.err
    assert out.is_file()


def test_as_json_it_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.pt2"
    assert run("export", "tiny", "--format", "torch-export", "--out", str(out), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "tiny.digits"
    assert document["certificate"] is None
    assert document["file"] == str(out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tiny", "--format", "onxn"), 2, "no format called 'onxn'"),
        (("tniy", "--format", "onnx"), 2, "Did you mean"),
        (("tiny", "--format", "onnx", "--timesteps", "0"), 2, "1 to 64, not 0"),
        (("tiny", "--format", "onnx", "--timesteps", "100000"), 2, "1 to 64, not 100000"),
        (("tiny", "--format", "onnx", "--verify", "--n", "0"), 2, "test images"),
        (("tiny", "--format", "onnx", "--n", "20"), 2, "--n says how many images --verify compares"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", *arguments, "--out", str(tmp_path / "x.onnx")) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("x*"))


def test_a_file_that_exists_is_kept_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.pt2"
    out.write_text("mine")
    assert run("export", "tiny", "--format", "torch-export", "--out", str(out)) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run("export", "tiny", "--format", "torch-export", "--out", str(out), "--force") == 0
    assert out.read_bytes() != b"mine"


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("export", "tiny", "--format", "torch-export", "--out", str(tmp_path / "file" / "x.pt2")) == 1
    assert "could not be written" in capsys.readouterr().err
