"""``tdsnn-zoo sweep``: many trainings from one file, on this machine or a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdsnn.cli import _output
from tdsnn.errors import TdsnnError, UsageError
from tdsnn.processes import usable_cores

if TYPE_CHECKING:
    from tdsnn.sweep.plan import SlurmOptions, Sweep
    from tdsnn.sweep.state import RunState

_LAUNCHERS = ("local", "slurm")


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to run; see below.")],
    jobs: Annotated[int, typer.Option(help="Trainings at a time, or jobs of the cluster.", min=1)] = 1,
    launcher: Annotated[
        str | None,
        typer.Option(
            help="local, or slurm (needs the extra of that name). Default: slurm with --slurm, else local.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(help="CPU threads of each training; default: the cores shared among the jobs.", min=0),
    ] = 0,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run folders; default runs/FILE.", show_default=False)
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What a job asks for, repeatable, in place of the table [slurm] of the file: partition, "
            "minutes, gpus, cpus, memory_gb, account, qos, constraint, setup.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; start nothing.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show how far it is; start nothing.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Also run again what failed.")] = False,
    release: Annotated[
        bool,
        typer.Option("--release", help="Measure finished runs and put them into the zoo; train nothing."),
    ] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Train what a file names; a stopped or killed sweep goes on where it was when it is started again.

    The file has tables called `runs`, each with `entry = "NAME"` and optionally `seeds`, `settings` (as of
    `train --set`) and a `label`; `seeds` and `settings` at the top are for all of them.

    Each run is a folder, and its state is read from there: several sweeps, also on several machines, may
    share the folders. A run that fails does not stop the others.

    Examples:

    * `tdsnn-zoo sweep zoo/sweeps/fashion_mnist.toml --dry-run`

    * `tdsnn-zoo sweep zoo/sweeps/fashion_mnist.toml --jobs 2`

    * `tdsnn-zoo sweep zoo/sweeps/fashion_mnist.toml --status --json`

    * `tdsnn-zoo sweep my.toml --jobs 8 --slurm minutes=600 --slurm gpus=1`
    """
    launcher = launcher or ("slurm" if slurm else "local")
    if launcher not in _LAUNCHERS:
        raise UsageError(f"There is no launcher called '{launcher}'.", hint=f"Known: {', '.join(_LAUNCHERS)}")
    if slurm and launcher != "slurm":
        raise UsageError("Options of Slurm need its launcher.", hint="Leave out --launcher local")
    if dry_run + status + release > 1:
        raise UsageError("Only one of --dry-run, --status and --release is possible.")

    from tdsnn.sweep.launch import Worker, forget_failures, run_locally
    from tdsnn.sweep.plan import read_sweep, slurm_options

    sweep = read_sweep(file, folder=run_dir)
    options = slurm_options(sweep, slurm or [])
    if release:
        _release(sweep, as_json=as_json)
    elif dry_run or status:
        _show(sweep, jobs=jobs, as_json=as_json, planned=dry_run)
    else:
        forget_failures(sweep, all_kinds=retry)
        if launcher == "slurm":
            _submit(sweep, jobs=jobs, threads=threads, options=options)
        else:
            worker = Worker(sweep, threads=threads or max(1, usable_cores() // jobs), note=_output.note)
            run_locally(worker, jobs=jobs)
        _show(sweep, jobs=jobs, as_json=as_json, planned=False)


def _submit(sweep: Sweep, *, jobs: int, threads: int, options: SlurmOptions) -> None:
    """As many jobs as are wanted beside those in the queue, but none for which no run is left."""
    from tdsnn.sweep.slurm import jobs_of, submit
    from tdsnn.sweep.state import read_states

    there = jobs_of(sweep)
    left = sum(state.kind not in ("done", "failed") for state in read_states(sweep.runs).values())
    wanted = min(jobs, left) - len(there)
    if wanted > 0:
        new = submit(sweep, jobs=wanted, threads=threads, options=options)
        _output.note(f"Submitted {len(new)} jobs: {', '.join(new)}")
    elif there:
        _output.note(f"{len(there)} jobs of it are in the queue already.")


def _queue(sweep: Sweep) -> list[dict[str, str]]:
    """Jobs of a cluster that work on it or will; none where it was never handed to one."""
    from tdsnn.sweep.slurm import jobs_of, was_submitted

    if not was_submitted(sweep):
        return []
    try:
        return [job._asdict() for job in jobs_of(sweep)]
    except TdsnnError as error:
        _output.note(error.message)
        return []


def _show(sweep: Sweep, *, jobs: int, as_json: bool, planned: bool) -> None:
    from tdsnn.schema import plain
    from tdsnn.sweep.state import read_states, seconds_left

    states = read_states(sweep.runs)
    left = seconds_left(sweep.runs, states, jobs=jobs)
    queue = _queue(sweep)
    failed = [state for state in states.values() if state.kind == "failed"]
    if as_json:
        _output.emit_json(
            {
                "sweep": str(sweep.path),
                "summary": sweep.summary,
                "seconds_left": left,
                "jobs": queue,
                "runs": [
                    {
                        **plain(states[run.name]),
                        "entry": run.entry,
                        "settings": list(run.settings),
                        "waits_for": run.waits_for or None,
                        "folder": str(run.folder),
                    }
                    for run in sweep.runs
                ],
            }
        )
    else:
        count = sum(state.kind == "done" for state in states.values())
        time_left = "time left: not known yet" if left is None else f"time left: {_duration(left)}"
        _output.table(
            f"{sweep.name}: {count} of {len(states)} runs done",
            ("run", "state", "epoch", "held out %", "CPU min", "left"),
            [_cells(states[run.name], run.manifest.recipe.epochs) for run in sweep.runs],
            caption=f"{time_left}; folder: {sweep.folder}",
        )
        for run in sweep.runs if planned else ():
            waits = f", after {run.waits_for}" if run.waits_for else ""
            _output.note(f"{run.name}: {' '.join(run.settings) or 'as its manifest says'}{waits}")
        for job in queue:
            why = f" ({job['reason']})" if job["reason"] != "None" else ""
            _output.note(f"Job {job['name']}: {job['state'].lower()}{why}")
    for state in failed:
        assert state.failure is not None
        _output.note(f"{state.name} failed: {state.failure.sentence} {state.failure.hint}".rstrip())
    if failed and not planned:
        raise TdsnnError(
            f"{len(failed)} of {len(states)} runs failed.", hint="Mend the cause, then: the same with --retry"
        )


def _cells(state: RunState, epochs: int) -> list[str]:
    beat = state.beat
    where = {"running": f"running on {beat.host}" if beat else "running"}.get(state.kind, state.kind)
    epoch = epochs if state.kind == "done" else beat.epoch if beat else 0
    left = beat.seconds_left if beat and state.kind == "running" else None
    return [
        state.name,
        where,
        f"{epoch}/{epochs}",
        "-" if state.held_out_accuracy is None else f"{100 * state.held_out_accuracy:.2f}",
        "-" if state.cpu_seconds is None else f"{state.cpu_seconds / 60:.1f}",
        "-" if left is None else _duration(left),
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _release(sweep: Sweep, *, as_json: bool) -> None:
    """Put every finished run that is its entry unchanged into the zoo; the rest goes into one document."""
    from tdsnn.sweep.release import release_finished

    done: dict[str, Any] = release_finished(sweep, note=_output.note)
    if as_json:
        _output.emit_json(done)
    if done["failed"]:
        raise TdsnnError(
            f"{len(done['failed'])} finished runs could not be measured: {', '.join(done['failed'])}.",
            hint="The others are; mend the cause and run the same command again.",
        )
