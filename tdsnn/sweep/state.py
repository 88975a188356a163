"""How far each run of a sweep is, read from its folder; there is no other record.

``outcome.json``  the run is finished.
``failed.json``   it ended with this sentence, under these settings; a sweep leaves it alone until it is told
                  to try again or plans the run with other settings.
``beat.json``     who trains it and how far, written every few seconds; an old one means that nobody does.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Literal

from tdsnn.errors import IntegrityError
from tdsnn.files import write_atomic
from tdsnn.schema import Count, Finite, Table, plain
from tdsnn.sweep.plan import Run
from tdsnn.training.state import STATE, read_outcome, read_recorded, settings_digest

BEAT = "beat.json"
FAILED = "failed.json"
BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 6 * BEAT_SECONDS
"""After so long without a sign of life a run counts as stopped; a file server may delay a few signs."""

Kind = Literal["queued", "waiting", "running", "stopped", "done", "failed"]


class Beat(Table, frozen=True, kw_only=True):
    """A sign of life."""

    host: str
    process: Count
    time: Finite
    """Seconds since 1970."""
    epoch: Count
    """Epochs done."""
    epochs: Count
    seconds_left: Finite | None
    """Of the training, as estimated by its pace; None before the first step."""
    ended: bool
    """Whether the process left of its own will."""

    @property
    def alive(self) -> bool:
        """Whether somebody trains; a process that was killed on another machine lives on for a minute."""
        if self.ended or time.time() - self.time > _SILENCE_SECONDS:
            return False
        return self.host != socket.gethostname() or _exists(self.process)


class Failure(Table, frozen=True, kw_only=True):
    """Why a run ended without a result."""

    sentence: str
    hint: str
    exit_code: int
    """Negative: the number of the signal that killed it."""
    settings: str = ""
    """Digest of the settings that it ran with; empty of a run that did not say."""

    def concerns(self, run: Run) -> bool:
        """Whether the run as it is planned now is the one that failed."""
        return self.settings in ("", settings_digest(run.manifest))


class RunState(Table, frozen=True, kw_only=True):
    """One run as its folder shows it."""

    name: str
    kind: Kind
    """``waiting``: for the twin whose weights it needs; ``stopped``: it will go on where it was."""
    beat: Beat | None
    failure: Failure | None
    held_out_accuracy: float | None
    cpu_seconds: float | None


def write_beat(
    folder: Path, *, epoch: int, epochs: int, seconds_left: float | None, ended: bool = False
) -> None:
    """Leave a sign of life of this process, or the last one."""
    beat = Beat(
        host=socket.gethostname(),
        process=os.getpid(),
        time=time.time(),
        epoch=epoch,
        epochs=epochs,
        seconds_left=seconds_left,
        ended=ended,
    )
    write_atomic(folder / BEAT, json.dumps(plain(beat)).encode())


def write_failure(folder: Path, failure: Failure) -> None:
    """Say why a run ended."""
    write_atomic(folder / FAILED, (json.dumps(plain(failure), indent=2) + "\n").encode())


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def read_failure(folder: Path) -> Failure | None:
    """Why the run in a folder ended, or None if it did not.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / FAILED
    return read_recorded(path, Failure, hint=f"Remove it: rm {quote(str(path))}")


def _read_beat(folder: Path) -> Beat | None:
    """The last sign of life; one that cannot be read is none."""
    try:
        return read_recorded(folder / BEAT, Beat, hint="")
    except IntegrityError:
        return None


def read_state(run: Run, others: Mapping[str, RunState]) -> RunState:
    """State of a run; ``others`` are those of the runs that it may wait for.

    A run whose files are damaged has failed with the sentence that says so: it does not stop the others.
    """
    beat, outcome = _read_beat(run.folder), None
    try:
        outcome, failure = read_outcome(run.folder), read_failure(run.folder)
        if failure is not None and not failure.concerns(run):
            failure = None
    except IntegrityError as error:
        failure = Failure(sentence=error.message, hint=error.hint, exit_code=error.exit_code)
    kind: Kind = "queued"
    if outcome is not None:
        kind = "done"
    elif failure is not None:
        kind = "failed"
    elif beat and beat.alive:
        kind = "running"
    elif run.waits_for and others[run.waits_for].kind != "done":
        kind = "waiting"
    elif beat or (run.folder / STATE).exists():
        kind = "stopped"
    return RunState(
        name=run.name,
        kind=kind,
        beat=beat,
        failure=None if outcome is not None else failure,
        held_out_accuracy=outcome.held_out_accuracy if outcome is not None else None,
        cpu_seconds=outcome.cpu_seconds if outcome is not None else None,
    )


def read_states(runs: Sequence[Run]) -> dict[str, RunState]:
    """Name to state, in the order of the runs."""
    found: dict[str, RunState] = {}
    # A twin waits for nobody, so everything that is waited for is read first.
    for run in sorted(runs, key=lambda run: bool(run.waits_for)):
        found[run.name] = read_state(run, found)
    return {run.name: found[run.name] for run in runs}


def seconds_left(runs: Sequence[Run], states: Mapping[str, RunState], *, jobs: int) -> float | None:
    """Estimated seconds until all runs are done; None while a kind of run has shown no pace yet.

    A run that has not begun counts like the finished ones of its entry and label, by their CPU time, which is
    too long where they used several threads and too short where the machine is busier now.
    """
    known: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        cpu = states[run.name].cpu_seconds
        if cpu is not None:
            known.setdefault(_like(run), []).append(cpu)
    total = 0.0
    for run in runs:
        state = states[run.name]
        if state.kind in ("done", "failed"):
            continue
        like = known.get(_like(run))
        if state.beat and state.beat.seconds_left is not None:
            total += state.beat.seconds_left
        elif like:
            total += sum(like) / len(like)
        else:
            return None
    return total / jobs


def _like(run: Run) -> tuple[str, ...]:
    manifest = run.manifest
    return (
        manifest.architecture,
        json.dumps(manifest.arguments, sort_keys=True),
        str(manifest.recipe.epochs),
        manifest.topography.loss if manifest.topographic else "",
    )
