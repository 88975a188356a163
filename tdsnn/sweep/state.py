"""How far each run of a sweep is, read from its folder; there is no other record.

``outcome.json``  the run is finished.
``failed.json``   it ended with this sentence; a sweep leaves it alone until it is told to try again.
``beat.json``     who trains it and how far, written every few seconds; an old one means that nobody does.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tdsnn.errors import IntegrityError
from tdsnn.files import read_json, write_atomic
from tdsnn.sweep.plan import Run
from tdsnn.train.session import OUTCOME
from tdsnn.train.state import STATE

BEAT = "beat.json"
FAILED = "failed.json"
BEAT_SECONDS = 10.0
_SILENCE_SECONDS = 6 * BEAT_SECONDS
"""After so long without a sign of life a run counts as stopped; a file server may delay a few signs."""

Kind = Literal["queued", "waiting", "running", "stopped", "done", "failed"]


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life."""

    host: str
    process: int
    time: float
    """Seconds since 1970."""
    epoch: int
    """Epochs done."""
    epochs: int
    seconds_left: float | None
    """Of the training, as estimated by its pace; None before the first step."""
    ended: bool
    """Whether the process left of its own will."""

    @property
    def alive(self) -> bool:
        """Whether somebody trains; a process that was killed on another machine lives on for a minute."""
        if self.ended or time.time() - self.time > _SILENCE_SECONDS:
            return False
        return self.host != socket.gethostname() or _exists(self.process)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended without a result."""

    sentence: str
    hint: str
    exit_code: int
    """Negative: the number of the signal that killed it."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run as its folder shows it."""

    name: str
    kind: Kind
    """``waiting``: for the twin whose weights it needs; ``stopped``: it will go on where it was."""
    beat: Beat | None
    failure: Failure | None
    held_out_accuracy: float | None
    cpu_seconds: float | None

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


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
    write_atomic(folder / BEAT, json.dumps(asdict(beat)).encode())


def write_failure(folder: Path, failure: Failure) -> None:
    """Say why a run ended."""
    write_atomic(folder / FAILED, (json.dumps(asdict(failure), indent=2) + "\n").encode())


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_failure(folder: Path) -> Failure | None:
    """Why the run in a folder ended, or None if it did not.

    Raises:
        IntegrityError: the file is damaged.
    """
    found = _read(folder / FAILED)
    try:
        return Failure(**found) if found else None
    except TypeError as error:
        raise _foreign(folder, error) from error


def read_state(run: Run, others: Mapping[str, RunState]) -> RunState:
    """State of a run; ``others`` are those of the runs that it may wait for.

    Raises:
        IntegrityError: a file of the folder is damaged.
    """
    outcome = _read(run.folder / OUTCOME)
    failure = read_failure(run.folder)
    noted = _read(run.folder / BEAT)
    try:
        beat = Beat(**noted) if noted else None
        accuracy = float(outcome["held_out_accuracy"]) if outcome else None
        cpu = float(outcome["cpu_seconds"]) if outcome else None
    except (TypeError, KeyError, ValueError) as error:
        raise _foreign(run.folder, error) from error
    kind: Kind = "queued"
    if outcome:
        kind = "done"
    elif failure:
        kind = "failed"
    elif beat and beat.alive:
        kind = "running"
    elif run.waits_for and others[run.waits_for].kind != "done":
        kind = "waiting"
    elif beat or (run.folder / STATE).exists():
        kind = "stopped"
    return RunState(
        name=run.name, kind=kind, beat=beat, failure=failure, held_out_accuracy=accuracy, cpu_seconds=cpu
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


def _foreign(folder: Path, error: Exception) -> IntegrityError:
    return IntegrityError(
        f"A file in '{folder}' is not what a sweep writes: {error}.",
        hint=f"Remove the folder to train the run anew: rm -r '{folder}'",
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file."""
    try:
        document = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"'{path}' cannot be read: {error}.", hint=f"Remove it and start the sweep again: rm '{path}'"
        ) from error
    if not isinstance(document, dict):
        raise IntegrityError(f"'{path}' is no JSON object.", hint=f"Remove it: rm '{path}'")
    return document
