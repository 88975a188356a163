"""``tdsnn-zoo bench``: accuracy without and under attack, a topographic model beside its twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn.benchmark.api import DEFAULT_ATTACKS, DEFAULT_MODELS, Benchmark
from tdsnn.benchmark.shards import Shard, read_shard
from tdsnn.benchmark.suites import suite_names
from tdsnn.cli import _output
from tdsnn.cli._bench_request import Request, run, words
from tdsnn.cli._completion import attack_names, complete, dataset_names, metric_names, suites, zoo_models
from tdsnn.drawing import require_format
from tdsnn.errors import GateError, UsageError
from tdsnn.files import require_file
from tdsnn.processes import is_main
from tdsnn.progress import Progress

if TYPE_CHECKING:
    from tdsnn.results import Result

_KNOWN_ATTACKS, _KNOWN_METRICS = ", ".join(attack_names()), ", ".join(metric_names())

_Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        autocompletion=zoo_models,
        help="Zoo entries, checkpoint folders, or package.module:function for a network of your own. A "
        "topographic model brings its twin. Default: " + " ".join(DEFAULT_MODELS),
        show_default=False,
    ),
]
_Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="NAME[:KEY=VALUE,...]",
        autocompletion=complete(attack_names),
        help=f"Attack, repeatable: {_KNOWN_ATTACKS}; a key is one of its settings, eps or norm. Default: "
        + " ".join(DEFAULT_ATTACKS),
        show_default=False,
    ),
]
_Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps",
        metavar="NUMBER",
        help="Strength of attacks that state none, 8 or 8/255 (bare numbers are in units of 1/255), "
        "repeatable: the radius; for gaussian the standard deviation. Default: 0.5 1 2 4 8; in L2 16 32 64 "
        "128 255; for gaussian 8 16 32 64",
        show_default=False,
    ),
]
_Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Steps of attacks that state none. Default: the attack's own (10)"),
]
_Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME[:KEY=VALUE,...]",
        autocompletion=complete(metric_names),
        help=f"Metric of time, repeatable: {_KNOWN_METRICS}; a key is one of its settings. No attack is then "
        "made unless it is named.",
        show_default=False,
    ),
]
_Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|FOLDER|IMAGES.npy,LABELS.npy",
        autocompletion=complete(dataset_names),
        help="Test images: a dataset, a folder with one folder of images for each class, or two arrays. "
        "Default: what the zoo entries are for",
        show_default=False,
    ),
]
_Suite = Annotated[
    str | None,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        autocompletion=suites,
        help=f"Frozen set of attacks, metrics, images and checks: {', '.join(suite_names())}; or a file of "
        "your own.",
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder for result.json, samples.safetensors and finished batches; a run goes on from what is "
        "there. Default: a cache folder of these settings",
        show_default=False,
    ),
]
_Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/K",
        help="Compute only the I-th of K parts, on one of several machines that share --out or whose folders "
        "are put together; the same command without it then gives the result.",
        show_default=False,
    ),
]


def command(
    models: _Models = None,
    attack: _Attacks = None,
    eps: _Eps = None,
    data: _Data = None,
    suite: _Suite = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "--images",
            help="Number of test images; --images under torchrun, which has options that begin with --n. "
            "Default: 1000, or the suite's.",
            show_default=False,
        ),
    ] = None,
    selection: Annotated[
        str,
        typer.Option(
            "--selection",
            metavar="first|random[:SEED]|FILE",
            help="Which test images: the first in canonical order (by content), n drawn at random, or those "
            "whose indices are in a file.",
        ),
    ] = "first",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of random starts and noise. Default: 0, or the suite's.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", help="Images per batch. Default: 100, or the suite's.", show_default=False
        ),
    ] = None,
    steps: _Steps = None,
    metric: _Metrics = None,
    early_exit: Annotated[
        bool,
        typer.Option("--early-exit", help="Time steps saved and accuracy lost: --metric early_exit."),
    ] = False,
    out: _Out = None,
    shard: _Shard = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Recompute what is stored.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the table into this file.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw accuracy against the radius into this .png or .svg file."),
    ] = None,
    as_json: _output.JsonFlag = False,
) -> None:
    """Compare models under attack on real images.

    Accuracy without and under attack with 95 % intervals, and the paired difference to the twin. Numbers
    are the same for the same seed; finished batches are kept, so a stopped run goes on where it was. An
    attack or a model that a gate refuses has no number, the others have theirs, and the exit code is 5.
    Metrics say how models answer in time; they are drawn beside the result.

    Examples:

    * `tdsnn-zoo bench` compares tsresnet18 with its non-topographic twin under PGD

    * `tdsnn-zoo bench --attack fgsm --attack pgd --eps 1 --eps 2` also gives the worst case of both

    * `tdsnn-zoo bench --attack pgd:steps=100,restarts=5 --attack pgd:norm=l2,eps=128/255`

    * `tdsnn-zoo bench sresnet18 --suite standard-v1` is what a row of the published table says

    * `tdsnn-zoo bench tsresnet18 --suite time-v1` is about time: latency, accuracy at each step, entropy

    * `tdsnn-zoo bench tsresnet18 --metric entropy:steps=5+10 --metric latency --n 200`

    * `tdsnn-zoo bench my_nets:spiking_resnet --data cifar10` takes any network of PyTorch

    * `tdsnn-zoo bench sresnet18 --attack gaussian --n 10000 --json`

    * `torchrun --nproc-per-node 2 -m tdsnn bench sresnet18 --suite standard-v1` shares the images

    * `tdsnn-zoo bench sresnet18 --suite standard-v1 --out DIR --shard 2/4` does one of four parts
    """
    part = None if shard is None else read_shard(shard)
    if part and (svg or plot):
        raise UsageError(
            "One part of a benchmark has no result to draw.",
            hint="Draw with the last command, the one without --shard.",
        )
    if plot is not None:
        require_format(plot)
    drawn = {"--svg": svg, "--plot": plot}
    for option, file in drawn.items():
        if file is not None:
            require_file(file, option=option)
    request = Request(
        models=tuple(models or DEFAULT_MODELS),
        attacks=tuple(attack or ()),
        eps=tuple(eps or ()),
        metrics=(*(metric or ()), *(("early_exit",) if early_exit else ())),
        data=data,
        suite=suite,
        n=n,
        selection=selection,
        device=device,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        out=out,
    )
    if part:
        _run_shard(request, part, fresh=fresh, as_json=as_json)
        return
    shown = [*words(drawn), *(["--json"] if as_json else [])]

    def work(benchmark: Benchmark, progress: Progress) -> Result:
        return benchmark.run(fresh=fresh, progress=progress)

    result, folder = run(request, work, shown=shown)
    if as_json:
        _output.emit_json(result.document())
    else:
        from tdsnn.result_tables import conclusions, tables

        for place, table in enumerate(tables(result)):
            _output.show(table, svg=svg if place == 0 else None)
        for sentence in conclusions(result):
            _output.note(sentence)
    if plot is not None:
        _draw(result, plot)
    _output.note(f"Result: {folder / 'result.json'}")
    if result.radii and suite is None:
        _output.note(f"Stronger attacks, and tests for masked gradients: {request.stronger()}")
    _require_numbers(result)


def _require_numbers(result: Result) -> None:
    cells = [(f"{one.model} under {one.title} {one.eps_255:g}", one.error) for one in result.cells]
    cells += [(f"{one['metric']} of {one['model']}", one["error"]) for one in result.measured]
    _require_none([f"{what}: {why}" for what, why in cells if why is not None], f"{len(cells)} cells")


def _require_none(failed: Sequence[str], of_all: str) -> None:
    if failed:
        raise GateError(
            f"{len(failed)} of {of_all} have no number; the first, {failed[0]}",
            hint="All others are in the result. The same command tries these again.",
        )


def _run_shard(request: Request, shard: Shard, *, fresh: bool, as_json: bool) -> None:
    def work(benchmark: Benchmark, progress: Progress) -> list[str]:
        return benchmark.run_shard(shard, fresh=fresh, progress=progress)

    shown = ["--shard", str(shard), *(["--json"] if as_json else [])]
    failed, folder = run(request, work, shown=shown)
    if as_json:
        _output.emit_json({"shard": str(shard), "folder": str(folder), "failed": failed})
    _output.note(f"Part {shard} is in {folder}; when all parts are: {request.command_line([])}")
    _require_none(failed, f"the cells of part {shard}")


def _draw(result: Result, plot: Path) -> None:
    if not result.radii:
        _output.note(f"No figure: no attack with a radius has a number, so {plot} was not written.")
        return
    if is_main():
        from tdsnn.benchmark.robustness_curve import draw

        draw(result, plot)
    _output.note(f"Figure: {plot}")
