"""``info`` of a folder: a run, however it ended, or a checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import run
from filelock import FileLock

from tdsnn import zoo
from tdsnn.errors import IntegrityError
from tdsnn.manifest import resolve
from tdsnn.models.sresnet18 import sresnet18
from tdsnn.training import state as states
from tdsnn.training.loop import LOG

NAME = "tsresnet18.fashion_mnist"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run that was killed in its second epoch."""
    folder = tmp_path / "it's a run"
    folder.mkdir()
    states.write_settings(folder, resolve(NAME))
    states.save_state(folder, {"position": {"epoch": 1, "step": 3}})
    (folder / LOG).write_text(json.dumps({"epoch": 0, "task": 1.5, "held_out_accuracy": 0.8}) + "\n")
    return folder


def answer(capsys: pytest.CaptureFixture[str], folder: Path) -> Any:
    assert run("info", str(folder), "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_stopped_run_says_how_to_go_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, begun)
    assert (found["name"], found["state"], found["epochs"]) == (NAME, "stopped", "1 of 8")
    assert found["last epoch"]["held_out_accuracy"] == 0.8
    quoted = "'" + str(begun).replace("'", "'\"'\"'") + "'"
    assert found["next"] == f"tdsnn-zoo train {NAME} --resume --run-dir {quoted}"
    assert run("info", str(begun)) == 0
    assert f"next          {found['next']}" in capsys.readouterr().out


def test_the_folder_of_the_name_needs_no_run_dir(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TDSNN_RUNS", str(begun.parent))
    found = answer(capsys, begun.rename(begun.parent / NAME))
    assert found["next"] == f"tdsnn-zoo train {NAME} --resume"


def test_a_run_that_a_process_is_at_work_on(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from filelock import FileLock\n"
        "with FileLock(Path(sys.argv[1]) / '.lock'): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(begun)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        found = answer(capsys, begun)
        other.stdin.close()
    assert found["state"] == "training now"
    assert "next" not in found


def test_a_run_of_another_user(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    found = answer(capsys, begun)
    assert found["state"] == "stopped, or training under another user"
    assert "next" not in found


@pytest.mark.parametrize(("torn", "code"), [('{"epoch": 1, "ta', 0), ("5\n", 3), ('{"epoch": 1, "ta\n', 3)])
def test_a_line_that_a_kill_cut_is_none_and_damage_is_said(
    begun: Path, capsys: pytest.CaptureFixture[str], torn: str, code: int
) -> None:
    with (begun / LOG).open("a") as log:
        log.write(torn)
    assert run("info", str(begun)) == code
    told = capsys.readouterr()
    assert "1 of 8" in told.out if code == 0 else "cannot be read" in " ".join(told.err.split())
    with pytest.raises(IntegrityError):
        states.read_log(begun / LOG)  # of a finished run


def test_a_finished_run_is_to_be_published(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states.write_outcome(begun, states.Outcome(name=NAME, data_digests={}, environment={}))
    found = answer(capsys, begun)
    assert found["state"] == "finished"
    assert found["next"].startswith("tdsnn-zoo publish ")


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = sresnet18(width=2, timesteps=3, in_channels=1, mean=(0.5,), std=(0.5,))
    zoo.save(model, tmp_path / "mine", name="mine", dataset="digits")
    found = answer(capsys, tmp_path / "mine")
    assert (found["name"], found["timesteps"], found["arguments"]["width"]) == ("mine", 3, 2)
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"")
    assert run("info", str(tmp_path / "mine")) == 3


def test_a_folder_that_is_neither(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", str(tmp_path)) == 2
    assert "is neither a checkpoint nor the folder of a run" in capsys.readouterr().err
