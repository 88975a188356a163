"""One run of a sweep in a process of its own: ``python -m tdsnn.sweep.job JSON``, with a :class:`Job`.

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

import msgspec
from filelock import Timeout

from tdsnn.errors import Interrupted, TdsnnError
from tdsnn.files import file_error
from tdsnn.kernels.memory import keep_freed_memory
from tdsnn.schema import Table
from tdsnn.sweep.state import BEAT_SECONDS, FAILED, Failure, write_beat, write_failure
from tdsnn.training.session import train
from tdsnn.training.state import OUTCOME, begun, lock_of

BUSY = 75
"""EX_TEMPFAIL of sysexits.h."""


class Job(Table, frozen=True, kw_only=True):
    """What one process trains; all that it needs to know of the sweep."""

    entry: str
    settings: list[str]
    folder: str
    epochs: int
    auxiliary: str | None
    """Checkpoint folder of the twin whose responses arrange the sheets."""
    device: str = "auto"
    """As of :func:`tdsnn.training.session.train`."""
    parent: int
    """Number of the process without which this one should not go on."""
    digest: str
    """Of the settings, as of :func:`tdsnn.training.state.settings_digest`."""


class _Pulse:
    """Leaves signs of life from a thread, and stops the run when its parent is gone."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.line: dict[str, Any] = {"epoch": 0}
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
            if os.getppid() != self.job.parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _write(self, *, ended: bool = False) -> None:
        # Where a sign of life finds no space the training will say so itself; this must not hide that.
        with suppress(TdsnnError):
            write_beat(
                Path(self.job.folder),
                epoch=self.line["epoch"],
                epochs=self.job.epochs,
                seconds_left=self.line.get("seconds_left"),
                ended=ended,
            )


def say(text: str) -> None:
    """A line for the log of a process that nobody watches."""
    sys.stderr.write(text + "\n")


def work(job: Job) -> int:
    """Train a run to its end, or go on where it was; returns the exit code."""
    folder = Path(job.folder)
    with file_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock_of(folder).acquire(timeout=0)
        except Timeout:
            return BUSY
    if (folder / OUTCOME).exists():
        return 0
    with file_error(folder):
        (folder / FAILED).unlink(missing_ok=True)
    try:
        with _Pulse(job) as pulse:
            train(
                job.entry,
                settings=job.settings,
                resume=begun(folder),
                device=job.device,
                run_dir=folder,
                watcher=pulse,
                note=say,
                auxiliary=job.auxiliary,
            )
    except Interrupted as error:
        return error.exit_code
    except TdsnnError as error:
        failure = Failure(
            sentence=error.message, hint=error.hint, exit_code=error.exit_code, settings=job.digest
        )
        write_failure(folder, failure)
        return error.exit_code
    return 0


if __name__ == "__main__":
    # The process is ours alone, and ends with the run.
    keep_freed_memory()
    sys.exit(work(msgspec.json.decode(sys.argv[1], type=Job)))
