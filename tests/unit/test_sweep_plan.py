"""Sweep files: what they expand to, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from tdsnn.errors import UsageError
from tdsnn.sweep import state
from tdsnn.sweep.plan import read_sweep
from tdsnn.sweep.state import (
    BEAT,
    FAILED,
    Failure,
    read_states,
    seconds_left,
    write_beat,
    write_failure,
)
from tdsnn.training.state import OUTCOME, STATE, settings_digest, write_settings
from tests.sweeps import PAIR, write, zoo_folder

BEAT_OF = (
    '{"host": "h", "process": 10000000000000, "time": %s, "epoch": 0, "epochs": 1, "seconds_left": 1.0, '
    '"ended": false}'
)

__all__ = ["zoo_folder"]


def test_entries_seeds_and_settings_become_runs(zoo_folder: Path, tmp_path: Path) -> None:
    text = 'seeds = [0, 2]\nsettings = ["epochs=1"]\n' + PAIR
    text += (
        '[[runs]]\nentry = "topo.digits"\nlabel = "strong"\nseeds = [2]\nsettings = ["topography.alpha=1"]\n'
    )
    sweep = read_sweep(write(tmp_path, text))
    assert sweep.summary == "A pair."
    # One seed after the other, so that the first results are comparable.
    assert [run.name for run in sweep.runs] == [
        "topo.digits",
        "plain.digits",
        "topo.digits-s2+strong",
        "topo.digits-s2",
        "plain.digits-s2",
    ]
    strong = sweep.runs[2]
    assert (strong.manifest.topography.alpha, strong.manifest.topography.beta) == (1.0, 0.1)
    assert (strong.manifest.recipe.epochs, strong.manifest.recipe.seed) == (1, 2)
    assert strong.waits_for == "plain.digits-s2"
    assert strong.folder == tmp_path / "runs" / "pair" / strong.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the key 'runs'"),
        ("runs = 3", "a list of at least 1 value for 'runs', not 3"),
        ("runs = []", "needs a list of at least 1 value for 'runs'"),
        ("runs = [3]", "needs a table for 'runs[0]', not 3"),
        ("[[runs]]", "lacks the key 'runs[0].entry'"),
        ("seed = [1]" + PAIR, "has an unknown key 'seed'; did you mean 'seeds'?"),
        (PAIR + "labels = 'x'", "unknown key 'runs[1].labels'; did you mean 'label'?"),
        (
            PAIR + "label = 'a/b'",
            "a label that can be part of a folder's name for 'runs[1].label', not 'a/b'",
        ),
        (PAIR + "label = ''\nseeds = [-1]", "number from 0 to 999999 for 'runs[1].seeds[0]', not -1"),
        ("seeds = []" + PAIR, "a list of at least 1 value for 'seeds', not []"),
        ("seeds = [true]" + PAIR, "number from 0 to 999999 for 'seeds[0]', not True"),
        ("settings = [1]" + PAIR, "needs a string for 'settings[0]', not 1"),
        ("settings = ['lr=fast']" + PAIR, "for 'recipe.lr', not 'fast'"),
        ("settings = ['epochs=0']" + PAIR, "for 'recipe.epochs', not 0"),
        ("settings = ['nonsense=0']" + PAIR, "unknown key 'recipe.nonsense'"),
        ("settings = ['seed=5']" + PAIR, "sets 'seed=5'"),
        ("settings = ['topography.sheet_seed=5']" + PAIR, "sets 'topography.sheet_seed=5'"),
        ("settings = ['augmentation=[1]']" + PAIR, "for 'recipe.augmentation[0]', not 1"),
        ("settings = ['augmentation=[\"spin\"]']" + PAIR, "for 'recipe.augmentation[0]', not 'spin'"),
        ("settings = ['topography.loss=foo']" + PAIR, "no spatial loss called 'foo'"),
        ("settings = ['model.width=a']" + PAIR, "a whole number for 'model.arguments.width', not 'a'"),
        ("settings = ['model.width.x=3']" + PAIR, "'model.width' has no parts such as 'x'"),
        ("settings = ['model.neuron=1']" + PAIR, "a table for 'model.arguments.neuron', not 1"),
        ("settings = ['lr=1" + 400 * "0" + "']" + PAIR, "for 'recipe.lr', not 1000"),
        ("seeds = [1000000]" + PAIR, "for 'seeds[0]', not 1000000"),
        (PAIR.replace("topo.digits", "topo.digits-s1"), "names 'topo.digits-s1', a seed"),
        ("settings = ['topography.alpha=0.1']" + PAIR, "needs the weights of its twin"),
        (PAIR.replace("topo", "tropo"), "Did you mean topo.digits"),
        (PAIR + PAIR.replace('summary = "A pair."', ""), "two runs called 'topo.digits'"),
        ("summary = 3" + PAIR.replace('summary = "A pair."', ""), "needs a string for 'summary'"),
        ("[[runs", "cannot be read"),
        ('[[runs]]\nentry = "topo.digits"', "needs the weights of its twin 'plain.digits'"),
        (PAIR + "settings = ['epochs=3']", "needs the weights of its twin"),
    ],
)
def test_bad_files_are_refused(zoo_folder: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_sweep(write(tmp_path, text))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no sweep file"):
        read_sweep(tmp_path / "none.toml")


def test_a_folder_of_other_settings_is_refused(zoo_folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path, PAIR)
    run = read_sweep(path).runs[1]
    run.folder.mkdir(parents=True)
    write_settings(run.folder, run.manifest)
    other = write(tmp_path, "settings = ['epochs=3']" + PAIR)
    read_sweep(other)  # nothing was made of them yet
    (run.folder / STATE).touch()
    read_sweep(write(tmp_path, PAIR))
    with pytest.raises(UsageError, match=r"began with 1 for 'recipe\.epochs'"):
        read_sweep(write(tmp_path, "settings = ['epochs=3']" + PAIR))


def test_states_are_read_from_the_folders(
    zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = read_sweep(write(tmp_path, PAIR))
    topo, plain = sweep.runs
    assert (topo.waits_for, plain.waits_for) == ("plain.digits", "")

    def kinds() -> list[str]:
        return [one.kind for one in read_states(sweep.runs).values()]

    assert kinds() == ["waiting", "queued"]
    plain.folder.mkdir(parents=True)
    write_beat(plain.folder, epoch=1, epochs=2, seconds_left=30.0)
    assert kinds() == ["waiting", "running"]
    assert seconds_left(sweep.runs, read_states(sweep.runs), jobs=1) is None, "nobody knows the other's pace"
    monkeypatch.setattr(state, "time", type("Later", (), {"time": staticmethod(lambda: time.time() + 3600)}))
    assert kinds() == ["waiting", "stopped"], "no sign of life for an hour"
    monkeypatch.setattr(state, "time", time)
    write_beat(plain.folder, epoch=1, epochs=2, seconds_left=30.0, ended=True)
    assert kinds() == ["waiting", "stopped"]
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # above the largest number of a process
    write_beat(plain.folder, epoch=1, epochs=2, seconds_left=30.0)
    assert kinds() == ["waiting", "stopped"], "its process is gone"
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    write_beat(plain.folder, epoch=1, epochs=2, seconds_left=30.0)
    monkeypatch.undo()
    monkeypatch.setenv("TDSNN_ZOO", str(zoo_folder))
    assert kinds() == ["waiting", "running"], "nothing is known of processes of other machines"
    write_failure(plain.folder, Failure(sentence="It broke.", hint="", exit_code=1))
    assert kinds() == ["waiting", "failed"]
    (plain.folder / FAILED).unlink()
    write_outcome(plain.folder)
    assert kinds() == ["queued", "done"]
    (topo.folder).mkdir()
    write_beat(topo.folder, epoch=0, epochs=2, seconds_left=90.0)
    assert seconds_left(sweep.runs, read_states(sweep.runs), jobs=2) == pytest.approx(45.0)


def write_outcome(folder: Path, **changes: object) -> None:
    outcome = {"name": "plain.digits", "held_out_accuracy": 0.5, "cpu_seconds": 60.0, "n": 144}
    outcome |= {"data_digests": {}, "environment": {}, **changes}
    (folder / OUTCOME).write_text(json.dumps(outcome))


FAILURE = '{"sentence": "It broke.", "hint": "", "exit_code": "x"}'


@pytest.mark.parametrize("name", [OUTCOME, FAILED])
@pytest.mark.parametrize("content", ["", "{}", "{", "[]", "null", '{"odd": 1}', "\xff", FAILURE])
def test_a_damaged_file_fails_its_run_and_no_other(
    zoo_folder: Path, tmp_path: Path, name: str, content: str
) -> None:
    sweep = read_sweep(write(tmp_path, PAIR))
    run = sweep.runs[1]
    run.folder.mkdir(parents=True)
    (run.folder / name).write_bytes(content.encode("latin-1"))
    states = read_states(sweep.runs)
    assert [state.kind for state in states.values()] == ["waiting", "failed"]
    failure = states[run.name].failure
    assert failure is not None
    assert str(run.folder / name) in failure.sentence
    assert f"rm {run.folder / name}" in failure.hint


def test_a_failure_under_other_settings_does_not_count(zoo_folder: Path, tmp_path: Path) -> None:
    run = read_sweep(write(tmp_path, PAIR)).runs[1]
    failure = Failure(sentence="It broke.", hint="", exit_code=1, settings=settings_digest(run.manifest))
    write_failure(run.folder, failure)
    assert read_states([run])[run.name].kind == "failed"
    other = read_sweep(write(tmp_path, "settings = ['lr=1e-3']" + PAIR)).runs[1]
    assert other.folder == run.folder
    assert read_states([other])[run.name].kind == "queued"
    write_failure(run.folder, replace(failure, settings=""))  # it does not say under which
    assert read_states([other])[run.name].kind == "failed"


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1, "0.5", True])
def test_an_accuracy_that_cannot_be_fails_the_run(zoo_folder: Path, tmp_path: Path, value: object) -> None:
    run = read_sweep(write(tmp_path, PAIR)).runs[1]
    run.folder.mkdir(parents=True)
    write_outcome(run.folder, held_out_accuracy=value)
    assert read_states([run])[run.name].kind == "failed"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"odd": 1}', BEAT_OF % '"a"', BEAT_OF % "1e400", BEAT_OF % "null"]
)
def test_a_sign_of_life_that_cannot_be_read_is_none(zoo_folder: Path, tmp_path: Path, content: str) -> None:
    run = read_sweep(write(tmp_path, PAIR)).runs[1]
    run.folder.mkdir(parents=True)
    (run.folder / BEAT).write_text(content)
    assert read_states([run])[run.name].kind in ("queued", "stopped")
