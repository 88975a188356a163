"""``tdsnn-zoo bench``: accuracy without and under attack, a topographic model beside its twin."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn.cli import _output, _progress
from tdsnn.errors import GateError, Interrupted
from tdsnn.registry import Registry

if TYPE_CHECKING:
    from tdsnn.bench.plan import Plan, Subject
    from tdsnn.results import Result

DEFAULT_MODELS = ("tsresnet18",)
DEFAULT_ATTACKS = ("pgd",)
_COMPILE_FROM = 1000
"""Attacked images from which on compiling the spiking layers takes less time than it saves."""

# The registry of tdsnn.attacks itself would import torch, which --help must not.
_KNOWN_ATTACKS = ", ".join(Registry[object]("attack", "tdsnn.attacks", "tdsnn-zoo bench --help").names())

_Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Zoo entries or checkpoint folders. A topographic entry brings its twin. Default: "
        + " ".join(DEFAULT_MODELS),
        show_default=False,
    ),
]
_Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="NAME",
        help=f"Attack, repeatable: {_KNOWN_ATTACKS}. Default: {' '.join(DEFAULT_ATTACKS)}",
        show_default=False,
    ),
]
_Eps = Annotated[
    list[float] | None,
    typer.Option(
        "--eps",
        metavar="NUMBER",
        help="Strength in units of 1/255, 0 to 255, repeatable: the Linf radius; for gaussian the standard "
        "deviation. Default: 0.5 1 2 4 8; for gaussian 8 16 32 64",
        show_default=False,
    ),
]
_Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps of iterative attacks. Default: the attack's own (10)")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for result.json, samples.safetensors and finished cells; a run goes on from what is "
        "there. Default: a cache folder of these settings",
        show_default=False,
    ),
]


def command(
    models: _Models = None,
    attack: _Attacks = None,
    eps: _Eps = None,
    n: Annotated[int, typer.Option("--n", help="Number of test images, from the first on.")] = 1000,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random starts and noise.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images per batch.")] = 100,
    steps: _Steps = None,
    out: _Out = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Recompute cells that are finished.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the table into this file.")] = None,
    as_json: _output.JsonFlag = False,
) -> None:
    """Compare models under attack on real images.

    Accuracy without and under attack with 95 % intervals, and the paired difference to the twin. Numbers
    are the same for the same seed; finished cells are kept, so a stopped run goes on where it was.

    Examples:

    * `tdsnn-zoo bench` compares tsresnet18 with its non-topographic twin under PGD

    * `tdsnn-zoo bench --attack fgsm --attack pgd --eps 1 --eps 2` also gives the worst case of both

    * `tdsnn-zoo bench sresnet18 --attack gaussian --n 10000 --json`
    """
    request = _Request(
        models=tuple(models or DEFAULT_MODELS),
        attacks=tuple(attack or DEFAULT_ATTACKS),
        eps_255=tuple(eps or ()),
        n=n,
        device=device,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        out=out,
        json=as_json,
    )
    result, folder = _run(request, fresh=fresh)
    if as_json:
        _output.emit_json(result.document())
    else:
        from tdsnn.cli import _bench_table

        _bench_table.show(result, svg=svg)
    _output.note(f"Result: {folder / 'result.json'}")
    failed = [cell for cell in result.cells if cell.error is not None]
    if failed:
        first = failed[0]
        raise GateError(
            f"{len(failed)} of {len(result.cells)} cells have no number; the first, {first.model} under "
            f"{first.attack} {first.eps_255:g}: {first.error}",
        )


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The command as it was given."""

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    eps_255: tuple[float, ...]
    n: int
    device: str
    seed: int
    batch_size: int
    steps: int | None
    out: Path | None
    json: bool

    def command_line(self) -> str:
        """What to type to go on. Finished cells are kept, so never with ``--fresh``."""
        words = ["tdsnn-zoo", "bench", *self.models]
        for name in self.attacks:
            words += ["--attack", name]
        for value in self.eps_255:
            words += ["--eps", f"{value:g}"]
        words += ["--n", str(self.n), "--device", self.device, "--seed", str(self.seed)]
        words += ["--batch-size", str(self.batch_size)]
        words += ["--steps", str(self.steps)] if self.steps is not None else []
        words += ["--out", str(self.out)] if self.out is not None else []
        words += ["--json"] if self.json else []
        return shlex.join(words)


def _run(request: _Request, *, fresh: bool) -> tuple[Result, Path]:
    stopped = "Stopped before the first cell."
    try:
        plan, subjects = _prepare(request)

        from tdsnn.bench.runner import run_bench, total_images
        from tdsnn.results import ResultFolder

        folder = request.out or plan.default_folder(subjects)
        stopped = f"Stopped; finished cells are kept in {folder}."
        with _progress.images(total_images(plan, subjects)) as progress:
            result = run_bench(plan, subjects, ResultFolder(folder), fresh=fresh, progress=progress)
    except KeyboardInterrupt as stop:
        raise Interrupted(stopped, hint=f"Go on with: {request.command_line()}") from stop
    return result, folder


def _prepare(request: _Request) -> tuple[Plan, Sequence[Subject]]:
    """Check the request, cheap things first, and load models and images."""
    # Before anything that imports torch: a mistyped name is answered at once.
    from tdsnn.bench.names import with_twins

    names = with_twins(request.models)

    from tdsnn.bench.plan import Plan, make_strikes
    from tdsnn.bench.subjects import compile_subjects, load_subjects
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE
    from tdsnn.runtime import choose_device

    strikes = make_strikes(request.attacks, eps_255=request.eps_255, steps=request.steps)
    device = choose_device(request.device)
    loaded = load_subjects(names, device=device)
    plan = Plan(
        dataset=loaded.dataset,
        split=load_split(loaded.dataset, "test"),
        n=request.n,
        strikes=strikes,
        seed=request.seed,
        batch_size=request.batch_size,
        device=device,
    )
    if request.n * len(strikes) * len(names) >= _COMPILE_FROM:
        _output.note(NOTICE)
        compile_subjects(loaded.subjects, device=device)
    return plan, loaded.subjects
