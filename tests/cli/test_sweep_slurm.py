"""A sweep on a Slurm cluster of one node: an array, a job that is stopped and returns, and a second call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from slurm import slurm
from sweeps import write, zoo_folder

from tdsnn.sweep.plan import Sweep, read_sweep
from tdsnn.sweep.slurm import JOBS, jobs_of
from tdsnn.sweep.state import BEAT, FAILED, read_states
from tdsnn.training.loop import LOG
from tdsnn.training.state import STATE

__all__ = ["slurm", "zoo_folder"]
pytest.importorskip("sklearn")
pytest.importorskip("submitit")

LONG = 8
THREE = f"""
summary = "Three."
settings = ["compile=false", "topography.preparation=retinotopic"]
[[runs]]
entry = "plain.digits"
label = "long"
settings = ["epochs={LONG}"]
[[runs]]
entry = "plain.digits"
[[runs]]
entry = "topo.digits"
[slurm]
minutes = 5
cpus = 1
"""


def until(reached: Callable[[], bool], sweep: Sweep) -> None:
    """Return as soon as it is, which must be within three minutes."""
    deadline = time.monotonic() + 180
    while not reached():
        logs = {path.name: path.read_text()[-2000:] for path in sweep.folder.rglob("*.err")}
        assert time.monotonic() < deadline, (read_states(sweep.runs), jobs_of(sweep), logs)
        time.sleep(0.1)


def _job_of(process: int) -> str:
    """The job that a process of this machine belongs to."""
    words = Path(f"/proc/{process}/environ").read_text().split("\0")
    environment = dict(word.partition("=")[::2] for word in words)
    return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"


@pytest.mark.slurm
@pytest.mark.slow
def test_a_job_that_is_stopped_returns_and_the_sweep_is_completed(
    zoo_folder: Path,
    slurm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm))
    programs = shutil.which("sbatch", path=os.defpath)
    assert programs is not None
    monkeypatch.setenv("PATH", str(Path(programs).parent))
    path, folder = write(tmp_path, THREE), tmp_path / "my runs"
    sweep = read_sweep(path, folder=folder)
    asked = ("sweep", str(path), "--run-dir", str(folder), "--launcher", "slurm", "--jobs", "2")
    assert run(*asked) == 0
    jobs = {job.name for job in jobs_of(sweep)}
    assert len(jobs) == 2
    assert len({name.partition("_")[0] for name in jobs}) == 1, "one array"
    assert run(*asked) == 0
    assert {job.name for job in jobs_of(sweep)} == jobs, "a second call starts no other jobs"
    capsys.readouterr()

    long = sweep.runs[0].folder
    until((long / STATE).exists, sweep)
    job = _job_of(json.loads((long / BEAT).read_text())["process"])
    assert job in jobs
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    until(lambda: json.loads((long / BEAT).read_text())["ended"], sweep)
    epoch = json.loads((long / BEAT).read_text())["epoch"]
    assert 0 < epoch < LONG
    until(lambda: all(state.kind == "done" for state in read_states(sweep.runs).values()), sweep)
    until(lambda: not jobs_of(sweep), sweep)
    lines = [json.loads(line)["epoch"] for line in (long / LOG).read_text().splitlines()]
    assert lines == list(range(LONG)), "it went on where it was"
    assert not list(folder.glob(f"*/{FAILED}"))
    assert any("Requeued job" in log.read_text() for log in (folder / JOBS).glob("*.out"))
    assert run("sweep", str(path), "--run-dir", str(folder), "--status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == []
