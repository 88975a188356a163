"""Training processes: Ctrl-C, signals and kills at any moment, and two processes for one model."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from msgspec.structs import replace

from tdsnn import manifest
from tdsnn.files import sha256_of
from tdsnn.schema import Manifest
from tdsnn.training.loop import LOG
from tdsnn.training.session import train
from tdsnn.training.state import OUTCOME, SETTINGS, STATE, load_state, lock_of
from tdsnn.training.stopping import Stop
from tdsnn.weights import read_checkpoint
from tests.processes import wait_for
from tests.training import SMALL

pytestmark = pytest.mark.usefixtures("threads")

COMMAND = ["train", "tsresnet18", "--device", "cpu", "--run-dir"]
DIGITS = [
    f"--set={change}"
    for change in (*SMALL[:2], "epochs=1", *SMALL[-2:], "topography.cluster_units=8")  # no twin of this size
]
WRAPPER = """
import signal
import sys
from msgspec.structs import replace
from tdsnn import manifest
from tdsnn.cli.main import main
# Jobs in the background of a script ignore Ctrl-C, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
real = manifest.resolve
manifest.resolve = lambda name: replace(real(name), dataset="digits")
from tdsnn.training import loop
loop._SAVE_EVERY_S = SECONDS
main(sys.argv[1:])
"""


def start(
    folder: Path,
    *extra: str,
    launcher: list[str] | None = None,
    settings: list[str] | None = None,
    save_every: float = 180.0,
) -> Any:
    script = folder.parent / "train_digits.py"
    script.write_text(WRAPPER.replace("SECONDS", str(save_every)), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [*(launcher or [sys.executable]), str(script), *COMMAND, str(folder), *(settings or DIGITS), *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def digits(resolve: Callable[[str], Manifest], name: str) -> Manifest:
    """As the script above."""
    return replace(resolve(name), dataset="digits")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    folder = tmp_path / "run"
    long = [*DIGITS[:2], "--set=epochs=50", *DIGITS[3:], "--set=batch_size=64"]
    process = start(folder, settings=long)
    deadline = time.monotonic() + 120
    while not (folder / LOG).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on where it was" in err
    assert "--resume" in err
    before = load_state(folder)["position"]
    assert before["epoch"] >= 1
    again = start(folder, "--resume", settings=long)
    epochs = len((folder / LOG).read_text().splitlines())
    deadline = time.monotonic() + 120
    while len((folder / LOG).read_text().splitlines()) <= epochs and time.monotonic() < deadline:
        time.sleep(0.2)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=60)
    assert load_state(folder)["position"]["epoch"] > before["epoch"]


@pytest.mark.slow
def test_kills_in_the_first_epoch_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before there is a state, then between saved states, then asked to end: the same checkpoint."""
    pytest.importorskip("sklearn")
    long = [*DIGITS[:2], "--set=epochs=2", *DIGITS[3:]]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    monkeypatch.setattr(manifest, "resolve", partial(digits, manifest.resolve))
    settings = [setting.removeprefix("--set=") for setting in long]
    train("tsresnet18", settings=settings, run_dir=whole, device="cpu")

    process = start(parts, settings=long)
    wait_for(parts / SETTINGS, process)
    process.kill()
    process.wait()
    process = start(parts, "--resume", settings=long, save_every=0.0)
    wait_for(parts / STATE, process)
    time.sleep(0.5)
    process.kill()
    process.wait()
    position = load_state(parts)["position"]
    assert position["step"] > 0
    process = start(parts, "--resume", settings=long)
    time.sleep(1.0)
    wait_for(parts / LOG, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "go on where it was" in err
    process = start(parts, "--resume", settings=long)
    assert process.wait(timeout=120) == 0, process.communicate()[1]
    ours, theirs = ((folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (parts, whole))
    assert ours == theirs
    logs = [
        [json.loads(line) for line in (folder / LOG).read_text().splitlines()] for folder in (parts, whole)
    ]
    assert [line["epoch"] for line in logs[0]] == [0, 1]
    for one, other in zip(*logs, strict=True):
        assert (one["task"], one["held_out_accuracy"]) == (other["task"], other["held_out_accuracy"])


def test_a_signal_waits_for_the_end_of_the_step() -> None:
    done: list[str] = []
    stop = Stop()

    def once() -> None:
        with stop.listening():
            with stop.whole():
                signal.raise_signal(signal.SIGTERM)
                done.append("step")
            done.append("never")

    def twice() -> None:
        with stop.listening(), stop.whole():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("step")

    def outside() -> None:
        with stop.listening():
            signal.raise_signal(signal.SIGTERM)
            done.append("never")

    def warned() -> None:
        with stop.listening():
            signal.raise_signal(signal.SIGUSR1)
            done.append("never")

    def between() -> None:
        with stop.listening(), stop.held():
            with stop.whole():
                done.append("step")
            signal.raise_signal(signal.SIGTERM)
            with stop.whole():
                done.append("step")
            done.append("never")

    def after() -> None:
        with stop.listening():
            with stop.held():
                signal.raise_signal(signal.SIGTERM)
                done.append("step")
            done.append("never")

    for case in (once, twice, outside, warned, between, after):
        with pytest.raises(KeyboardInterrupt):
            case()
    assert done == ["step"] * 5
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_folder_is_locked_until_it_is_released(tmp_path: Path) -> None:
    lock_of(tmp_path).acquire(timeout=0)
    with (tmp_path / ".lock").open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock_of(tmp_path / "." / "").release()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(Timeout):
            lock_of(tmp_path).acquire(timeout=0)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(folder, launcher=torchrun, settings=[*DIGITS, "--set=batch_size=128"])
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.count("Trained tsresnet18") == 1, "only the main process reports"
    assert err.count("Training tsresnet18") == 1
    outcome = json.loads((folder / OUTCOME).read_text())
    assert outcome["environment"]["processes"] == 2
    assert outcome["weights_sha256"] == sha256_of(folder / "checkpoint" / "model.safetensors")
    assert len((folder / LOG).read_text().splitlines()) == 1
    assert read_checkpoint(folder / "checkpoint").config.dataset == "digits"
