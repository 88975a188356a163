"""One run of a sweep in a process of its own: ``python -m tdsnn.sweep.job FILE FOLDER RUN``.

The process holds the lock of the run's folder, so no other one trains it, and ends when the process that
started it does. Exit codes are those of every command; ``BUSY`` says that another process has the run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tdsnn.errors import Interrupted, TdsnnError
from tdsnn.sweep.plan import Run, read_sweep
from tdsnn.sweep.state import BEAT_SECONDS, FAILED, Failure, write_beat, write_failure
from tdsnn.train.session import OUTCOME, train
from tdsnn.train.state import SETTINGS

BUSY = 75
"""EX_TEMPFAIL of sysexits.h."""


class _Pulse:
    """Leaves signs of life from a thread, and stops the run when its parent is gone."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.line: dict[str, Any] = {"epoch": 0}
        self._parent = os.getppid()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def step(self, line: dict[str, Any]) -> None:
        self.line = line

    def epoch(self, line: dict[str, Any]) -> None:
        self.line = {**line, "epoch": line["epoch"] + 1}

    def __enter__(self) -> _Pulse:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
        self._write(ended=True)

    def _beat(self) -> None:
        while True:
            self._write()
            if self._done.wait(BEAT_SECONDS):
                return
            if os.getppid() != self._parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _write(self, *, ended: bool = False) -> None:
        # Where a sign of life finds no space the training will say so itself; this must not hide that.
        with suppress(TdsnnError):
            write_beat(
                self.run.folder,
                epoch=self.line["epoch"],
                epochs=self.run.manifest.recipe.epochs,
                seconds_left=self.line.get("seconds_left"),
                ended=ended,
            )


def lock_of(run: Run) -> FileLock:
    """Held by whoever trains a run; it goes with its process, however that ends."""
    return FileLock(run.folder / ".lock")


def say(text: str) -> None:
    """A line for the log of a process that nobody watches."""
    sys.stderr.write(text + "\n")


def work(run: Run, auxiliary: Path | None) -> int:
    """Train a run to its end, or go on where it was; returns the exit code."""
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = lock_of(run)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return BUSY
    with lock:
        if (run.folder / OUTCOME).exists():
            return 0
        (run.folder / FAILED).unlink(missing_ok=True)
        try:
            with _Pulse(run) as pulse:
                train(
                    run.entry,
                    settings=run.settings,
                    resume=(run.folder / SETTINGS).exists(),
                    device="auto",
                    run_dir=run.folder,
                    watcher=pulse,
                    note=say,
                    auxiliary=auxiliary,
                )
        except Interrupted as error:
            return error.exit_code
        except TdsnnError as error:
            write_failure(
                run.folder, Failure(sentence=error.message, hint=error.hint, exit_code=error.exit_code)
            )
            return error.exit_code
    return 0


def main(arguments: list[str]) -> int:
    """Entry point of the process."""
    path, folder, name = arguments
    sweep = read_sweep(Path(path), folder=Path(folder))
    runs = {run.name: run for run in sweep.runs}
    run = runs[name]
    twin = runs[run.waits_for].folder / "checkpoint" if run.waits_for else None
    return work(run, twin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
