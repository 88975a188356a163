"""Who works on a sweep: processes of this machine; those of a cluster are in :mod:`tdsnn.sweep.slurm`.

A worker takes the next run that nobody has, starts a process for it (:mod:`tdsnn.sweep.job`), and repeats
that until nothing is left to do. Any number of workers on any number of machines may share a folder: what
keeps them apart is each folder's lock.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import msgspec
import torch
from filelock import Timeout

from tdsnn.errors import IntegrityError, Interrupted, TdsnnError
from tdsnn.files import file_error
from tdsnn.progress import Note, unheard
from tdsnn.sweep.job import BUSY, Job
from tdsnn.sweep.plan import Run, Sweep
from tdsnn.sweep.state import FAILED, Failure, RunState, read_failure, read_states, write_failure
from tdsnn.training.state import CHECKPOINT, OUTCOME, lock_of, settings_digest

LOG = "job.log"
"""In a run's folder: what its process printed."""
_PAUSE_SECONDS = 2.0
STOP_SECONDS = 120.0
"""A process that was asked to stop saves its state; a step of a large model may take a while."""

_LEFT = (BUSY, Interrupted.exit_code, -signal.SIGUSR1, -signal.SIGUSR2)
"""Exit codes of a process that left its run for later. The signals are a scheduler's, before it listened."""


class Worker:
    """Works on a sweep until nothing is left that it could do.

    Args:
        threads: of each training; 0 leaves the choice to PyTorch.
        note: told of each run that begins and ends.
    """

    def __init__(self, sweep: Sweep, *, threads: int = 0, note: Note = unheard) -> None:
        self.sweep, self.threads, self.note = sweep, threads, note
        self._stopped = threading.Event()
        gpus = torch.cuda.device_count()
        self._devices = [f"cuda:{index}" for index in range(gpus)] if gpus > 1 else ["auto"]
        self._taken: dict[str, str] = {}
        """Name of each run in work, and its device."""
        self._failed: set[str] = set()
        self._choosing = threading.Lock()

    def __call__(self) -> None:
        while not self._stopped.is_set():
            run, unfinished = self._next()
            if run is not None:
                self._train(run)
            elif unfinished:
                # Somebody else trains a twin that others wait for, or may die and leave a run to us.
                self._stopped.wait(_PAUSE_SECONDS)
            else:
                return

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ask for the end; running trainings save their state first."""
        self._stopped.set()

    def stop_and_wait(self) -> None:
        """Return when they have; in the handler of a signal too, where no lock may be waited for."""
        self.stop()
        while self._taken:
            time.sleep(0.1)

    def _next(self) -> tuple[Run | None, bool]:
        """A run to take, and whether there are any that are neither done nor failed nor hopeless."""
        with self._choosing:
            states = read_states(self.sweep.runs)
            open_runs = [run for run in self.sweep.runs if not self._ended(run, states)]
            for run in open_runs:
                ready = states[run.name].kind in ("queued", "stopped")
                if ready and run.name not in self._taken and _free(run):
                    busy = list(self._taken.values())
                    # Left to themselves all would take the first GPU.
                    self._taken[run.name] = min(self._devices, key=busy.count)
                    return run, True
            return None, bool(open_runs)

    def _ended(self, run: Run, states: Mapping[str, RunState]) -> bool:
        twin = states.get(run.waits_for)
        if states[run.name].kind in ("done", "failed") or (twin is not None and twin.kind == "failed"):
            return True
        # What could not even say so, for lack of space.
        return run.name in self._failed or run.waits_for in self._failed

    def _train(self, run: Run) -> None:
        self.note(f"{run.name}: started{' anew, it failed under other settings' * _failed_before(run)}")
        begun = time.monotonic()
        try:
            code = _run_job(
                self.sweep,
                run,
                device=self._taken[run.name],
                threads=self.threads,
                stopped=self._stopped,
            )
            if code == 0 and (run.folder / OUTCOME).exists():
                self.note(f"{run.name}: done in {(time.monotonic() - begun) / 60:.1f} min")
            elif code not in _LEFT and not self.stopped:
                self.note(f"{run.name}: failed")
                if not (run.folder / FAILED).exists():
                    write_failure(run.folder, _unexplained(run, code))
        except TdsnnError as error:
            # It could not be started, or why it failed could not be written.
            self._failed.add(run.name)
            self.note(f"{run.name}: {error.message}")
        finally:
            with self._choosing:
                del self._taken[run.name]


def _failed_before(run: Run) -> bool:
    """Whether a failure is kept that is not one of the run as it is planned now."""
    failure = read_failure(run.folder)
    return failure is not None and not failure.concerns(run)


def _free(run: Run) -> bool:
    """Whether nobody has the run now; asked before a process is started that would find the same out."""
    if not run.folder.exists():
        return True
    try:
        with file_error(run.folder), lock_of(run.folder).acquire(timeout=0):
            return True
    except Timeout:
        return False


def _unexplained(run: Run, code: int) -> Failure:
    if code < 0:
        reason = f"Its process was killed by signal {-code} ({signal.strsignal(-code)})."
    else:
        reason = f"Its process ended with code {code} without a reason."
    return Failure(
        sentence=reason,
        hint=f"See the end of {run.folder / LOG}",
        exit_code=code,
        settings=settings_digest(run.manifest),
    )


def _run_job(sweep: Sweep, run: Run, *, device: str, threads: int, stopped: threading.Event) -> int:
    """Exit code of the process that trains a run; it is asked to stop when ``stopped`` is set."""
    environment = dict(os.environ)
    if threads:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    twin = next((one for one in sweep.runs if one.name == run.waits_for), None)
    job = Job(
        entry=run.entry,
        settings=list(run.settings),
        folder=str(run.folder.resolve()),
        epochs=run.manifest.recipe.epochs,
        auxiliary=None if twin is None else str(twin.folder.resolve() / CHECKPOINT),
        device=device,
        parent=os.getpid(),
        digest=settings_digest(run.manifest),
    )
    words = [sys.executable, "-m", "tdsnn.sweep.job", msgspec.json.encode(job).decode()]
    with file_error(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        log = (run.folder / LOG).open("a", encoding="utf-8")
    with log:
        # A session of its own: Ctrl-C reaches this process only, which then asks in order.
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
        while process.poll() is None and not stopped.is_set():
            stopped.wait(0.2)
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def run_locally(worker: Worker, *, jobs: int) -> None:
    """Work with ``jobs`` processes at a time on this machine.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; every running training has saved its state.
    """

    def ask(*_: object) -> None:
        worker.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(worker) for _ in range(jobs)]:
                future.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if worker.stopped:
        raise Interrupted("Stopped; every run can go on where it was.", hint="Go on: the same command again")


def forget_failures(sweep: Sweep, *, all_kinds: bool) -> None:
    """Let a new start try again what was killed, and with ``all_kinds`` also what failed with a sentence."""
    for run in sweep.runs:
        try:
            failure = read_failure(run.folder)
        except IntegrityError:
            failure = None  # read_states says so; nobody but the user removes it
        if failure is not None and (all_kinds or failure.exit_code < 0):
            with file_error(run.folder / FAILED):
                (run.folder / FAILED).unlink(missing_ok=True)
