"""The sweep command: what it shows, kills, failures, two at once, and what becomes of finished runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run
from processes import wait_for
from sweeps import PAIR, write, zoo_folder

from tdsnn import store
from tdsnn.manifest import load_release
from tdsnn.sweep import launch
from tdsnn.sweep.plan import read_sweep, slurm_options
from tdsnn.sweep.release import RESULTS
from tdsnn.sweep.slurm import JOBS, submit
from tdsnn.sweep.state import BEAT, FAILED, read_states
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.training.session import train
from tdsnn.training.state import CHECKPOINT, OUTCOME, STATE

__all__ = ["zoo_folder"]
pytest.importorskip("sklearn")


def start(*arguments: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "tdsnn", "sweep", *arguments, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def weights(folder: Path) -> dict[str, bytes]:
    found = folder.glob("*/checkpoint/model.safetensors")
    return {path.parents[1].name: path.read_bytes() for path in found}


def status(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    run("sweep", str(path), "--run-dir", str(folder), "--status", "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_dry_run_shows_and_starts_nothing(
    zoo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, PAIR)
    assert run("sweep", str(path), "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "0 of 2 runs done" in out
    assert "topo.digits" in out
    assert "waiting" in out
    assert "after plain.digits" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "pbs"], "no launcher called 'pbs'"),
        (["--launcher", "local", "--slurm", "minutes=9"], "need its launcher"),
        (["--slurm", "minutes"], "'minutes' is not of the form key=value"),
        (["--slurm", "minutes=1"], "needs a whole number from 5 to 1000000 for 'minutes', not '1'"),
        (["--slurm", "gpu=1"], "did you mean 'gpus'"),
        (["--slurm", "gpu=1", "--dry-run"], "did you mean 'gpus'"),
        (["--dry-run", "--status"], "Only one of"),
        (["--release"], "No run of"),
    ],
)
def test_options_that_do_not_fit(
    zoo_folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("sweep", str(write(tmp_path, PAIR)), *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_machine_without_slurm_is_told_so(
    zoo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, PAIR)
    assert run("sweep", str(path), "--launcher", "slurm") == 4
    assert "Slurm's program 'squeue' is not on this machine" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "runs" / "pair" / JOBS).mkdir(parents=True)
    assert run("sweep", str(path), "--status", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["jobs"] == []
    assert "'squeue' is not on this machine" in " ".join(err.split())


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_what_slurm_refuses_is_a_sentence(
    zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    programs, path = tmp_path / "bin", write(tmp_path, PAIR + '[slurm]\npartition = "none"\n')
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
    _program(programs, "squeue", "echo 'slurm_load_jobs error: Unable to contact controller' >&2; exit 1")
    assert run("sweep", str(path), "--launcher", "slurm") == 1
    assert "which jobs there are: slurm_load_jobs error: Unable" in " ".join(capsys.readouterr().err.split())
    _program(programs, "squeue", "true")
    _program(programs, "srun", "true")
    _program(programs, "sbatch", "cat $1 >$0.asked; echo 'sbatch: error: invalid partition' >&2; exit 1")
    assert run("sweep", str(path), "--slurm", "gpus=1", "--slurm", "setup=module load cuda") == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "Slurm did not take the jobs" in message
    assert "invalid partition" in message
    asked = (programs / "sbatch.asked").read_text()
    for line in ("--partition=none", "--gpus-per-node=1", "--time=60", "--requeue", "--signal=USR2@150"):
        assert f"#SBATCH {line}" in asked
    assert "module load cuda" in asked.splitlines()


@pytest.mark.slow
def test_a_killed_sweep_ends_like_trainings_that_were_not(
    zoo_folder: Path, threads: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["epochs=3", "compile=false"]
    path = write(tmp_path, f"settings = {settings}" + PAIR)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for name, auxiliary in (("plain.digits", None), ("topo.digits", whole / "plain.digits" / CHECKPOINT)):
        train(name, settings=settings, run_dir=whole / name, device="cpu", auxiliary=auxiliary)

    process = start(str(path), "--run-dir", str(parts))
    wait_for(parts / "plain.digits" / STATE, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    beat = json.loads((parts / "plain.digits" / BEAT).read_text())
    os.kill(beat["process"], signal.SIGKILL)
    # In a container without an init process the dead one keeps its number: an old sign of life tells too.
    beat["time"] -= 3600
    (parts / "plain.digits" / BEAT).write_text(json.dumps(beat))
    left = {one["name"]: one["kind"] for one in status(path, parts, capsys)["runs"]}
    assert left == {"plain.digits": "stopped", "topo.digits": "waiting"}
    # Two at once share what is left.
    both = [start(str(path), "--run-dir", str(parts)) for _ in range(2)]
    for one in both:
        out, err = one.communicate(timeout=240)
        assert one.returncode == 0, err
        assert "2 of 2 runs done" in out
    assert weights(parts) == weights(whole)
    assert len(weights(whole)) == 2


def test_trainings_at_a_time_share_the_gpus(
    zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, 'seeds = [0, 1, 2, 3]\n[[runs]]\nentry = "plain.digits"\n')
    both, on = threading.Barrier(2), []

    def job(*_: object, device: str, **__: object) -> int:
        both.wait(timeout=60)
        on.append(device)
        return 1

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "_run_job", job)
    launch.run_locally(launch.Worker(read_sweep(path, folder=tmp_path / "runs")), jobs=2)
    assert sorted(on) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


@pytest.mark.slow
def test_sigterm_saves_and_a_failure_stops_nobody(
    zoo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_block = '[[runs]]\nentry = "plain.digits"\n'
    text = (
        f'summary = "Two."\n{run_block}{run_block}label = "odd"\nsettings = ["optimizer=sgd", "lr=100.0"]\n'
    )
    path, folder = write(tmp_path, text), tmp_path / "some"
    process = start(str(path), "--run-dir", str(folder), "--jobs", "2")
    wait_for(folder / "plain.digits" / STATE, process)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "go on where" in err
    process = start(str(path), "--run-dir", str(folder), "--jobs", "2")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "1 of 2 runs done" in out
    assert "plain.digits+odd failed: " in err
    assert "Traceback" not in err
    kinds = {one["name"]: one["kind"] for one in status(path, folder, capsys)["runs"]}
    assert kinds == {"plain.digits": "done", "plain.digits+odd": "failed"}
    assert (folder / "plain.digits+odd" / FAILED).exists()
    before = (folder / "plain.digits+odd" / FAILED).stat().st_mtime_ns
    assert run("sweep", str(path), "--run-dir", str(folder)) == 1
    assert (folder / "plain.digits+odd" / FAILED).stat().st_mtime_ns == before, "not tried again by itself"
    capsys.readouterr()
    assert run("sweep", str(path), "--run-dir", str(folder), "--retry") == 1
    assert "plain.digits+odd: started" in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_of_a_cluster_share_the_work_and_all_is_released(
    zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    text = PAIR + '[[runs]]\nentry = "plain.digits"\nlabel = "slow"\nsettings = ["lr=1e-4"]\n'
    path, folder = write(tmp_path, text), tmp_path / "cluster"
    sweep = read_sweep(path, folder=folder)
    options = slurm_options(sweep, ["minutes=5"])
    identifiers = submit(sweep, jobs=2, threads=1, options=options, cluster="local")
    assert len(identifiers) == 2
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        states = read_states(sweep.runs)
        if all(state.kind == "done" for state in states.values()):
            break
        time.sleep(0.5)
    assert {name: state.kind for name, state in states.items()} == dict.fromkeys(states, "done")
    assert all((one.folder / OUTCOME).exists() for one in sweep.runs)

    # Networks of this size learn nothing in an epoch, which a release refuses.
    monkeypatch.setattr(type(CLASSIFICATION), "chance", lambda *_: 0.0)
    # What is finished becomes releases, and a document of what tried other settings.
    again = ("sweep", str(path), "--run-dir", str(folder), "--release", "--json")
    assert run(*again) == 0
    done = json.loads(capsys.readouterr().out)
    names = ["plain.digits", "topo.digits"]
    assert (done["released"], done["measured"], done["failed"]) == (names, ["plain.digits+slow"], {})
    for name in names:
        release = load_release(name)
        assert release is not None
        accuracy = release.metrics["clean_accuracy"]
        assert 0 < accuracy["value"] <= 100
        assert accuracy["n"] == 355
        assert store.available(name) == "folder"
    (record,) = json.loads((folder / RESULTS).read_text())["runs"]
    assert (record["entry"], record["seed"], record["label"]) == ("plain.digits", 0, "slow")
    assert record["held_out_accuracy"]["n"] == 144
    assert set(record["alignment"]) == {"rate", "timing"}
    assert run(*again) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"released": [], "measured": [], "failed": {}}, "nothing is done twice"
