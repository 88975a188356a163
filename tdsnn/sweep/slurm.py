"""Workers of a sweep as jobs of a Slurm cluster, through submitit.

The jobs are one array, whose comment says which folder they work on: that is how a later call finds them.
Before a job's time is over, or when it is to make room for others, Slurm sends a signal; then the training
saves its state, and the job goes back into the queue. A job that is cancelled saves its state, and is gone.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

from tdsnn.errors import MissingError, TdsnnError
from tdsnn.files import file_error
from tdsnn.paths import install_command
from tdsnn.sweep.job import say
from tdsnn.sweep.launch import STOP_SECONDS, Worker, run_locally
from tdsnn.sweep.plan import SlurmOptions, Sweep

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

JOBS = "submitit"
"""In the sweep's folder: what jobs printed, and how they are to begin."""
_RETURNS = 10_000
"""How often a job may go back into the queue, which is as often as it takes."""


class ClusterJob(NamedTuple):
    """One job that is in the queue."""

    name: str
    """Its number, with that in the array: ``12_0``."""
    state: str
    """As Slurm calls it: ``RUNNING``, ``PENDING``, ..."""
    reason: str
    """Why it is not running; ``None`` if it is."""


class ClusterWorker:
    """What one job does. It is pickled, so a worker, which has locks, is made only in the job.

    Args:
        threads: of each training; 0 leaves the choice to PyTorch.
    """

    def __init__(self, sweep: Sweep, threads: int) -> None:
        self.sweep, self.threads = sweep, threads
        self._worker: Worker | None = None

    def __call__(self) -> None:
        self._worker = Worker(self.sweep, threads=self.threads, note=say)
        run_locally(self._worker, jobs=1)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit at Slurm's signal, before the job goes back into the queue: save the state."""
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.stop_and_wait()
        return DelayedSubmission(ClusterWorker(self.sweep, self.threads))


def submit(
    sweep: Sweep, *, jobs: int, threads: int, options: SlurmOptions, cluster: str = "slurm"
) -> list[str]:
    """Hand ``jobs`` workers to a cluster; they share the sweep's folder, which all nodes must see.

    Args:
        threads: of each training; 0: the CPUs of its job.
        cluster: ``slurm``, or ``local`` for processes of this machine.

    Returns:
        Names of the jobs.

    Raises:
        MissingError: submitit or Slurm is not installed here.
        TdsnnError: Slurm does not take them.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise MissingError(
            "Slurm needs the package 'submitit', which is not installed.",
            hint=f"Install it: {install_command('slurm')}",
        ) from error
    if cluster == "slurm":
        _require("sbatch")
    folder = sweep.folder.resolve() / JOBS
    with file_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=_RETURNS)
    executor.update_parameters(
        name=f"tdsnn-{sweep.name}", slurm_comment=_comment(sweep), **_parameters(options)
    )
    worker = ClusterWorker(sweep, threads or options.cpus)
    try:
        with executor.batch():
            submitted = [executor.submit(worker) for _ in range(jobs)]
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1]
        raise TdsnnError(f"Slurm did not take the jobs: {reason}", hint="What there is: sinfo") from error
    return [job.job_id for job in submitted]


def jobs_of(sweep: Sweep) -> list[ClusterJob]:
    """Jobs of the sweep that are in the queue, running or not.

    Raises:
        MissingError: Slurm is not installed here.
        TdsnnError: its controller does not answer.
    """
    _require("squeue")
    words = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--array", "--format=%i|%T|%r|%k"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TdsnnError(f"Slurm does not say which jobs there are: {reason}", hint="Ask it: scontrol ping")
    rows = [line.split("|", maxsplit=3) for line in done.stdout.splitlines()]
    return [ClusterJob(*row[:3]) for row in rows if row[3:] == [_comment(sweep)]]


def was_submitted(sweep: Sweep) -> bool:
    """Whether there may be jobs of it."""
    return (sweep.folder / JOBS).is_dir()


def _comment(sweep: Sweep) -> str:
    return f"tdsnn: {sweep.folder.resolve()}"


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise MissingError(
            f"Slurm's program '{program}' is not on this machine.",
            hint="Run this where jobs are submitted, or without --launcher slurm.",
        )


def _parameters(options: SlurmOptions) -> dict[str, Any]:
    """As submitit calls them; what is left to the cluster is left out."""
    given = {
        "mem_gb": options.memory_gb,
        "gpus_per_node": options.gpus,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_constraint": options.constraint,
        "slurm_setup": list(options.setup),
    }
    return {key: value for key, value in given.items() if value} | {
        "timeout_min": options.minutes,
        "cpus_per_task": options.cpus,
        # Also after a node has failed.
        "slurm_additional_parameters": {"requeue": True},
        "slurm_signal_delay_s": round(STOP_SECONDS) + 30,
    }
