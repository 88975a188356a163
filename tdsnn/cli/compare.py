"""``tdsnn-zoo compare``: two models over their seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from tdsnn.benchmark.suites import suite_names
from tdsnn.cli import _output, _progress
from tdsnn.cli._completion import zoo_models

_A = Annotated[
    str,
    typer.Argument(
        autocompletion=zoo_models,
        help="A full name, exactly that one; a bare name, the default variant and all its seeds; quoted, "
        "'NAME-s*', all seeds of that entry, or any other pattern of one entry's seeds.",
    ),
]
_B = Annotated[
    str | None,
    typer.Argument(
        autocompletion=zoo_models,
        help="What it is compared with, named in the same way. Default: the twins of A.",
    ),
]


_Suite = Annotated[
    str | None,
    typer.Option(
        "--suite",
        metavar="NAME|FILE",
        help=f"Measure both under a suite of attacks: {', '.join(suite_names())}; or a file of your own.",
        show_default=False,
    ),
]


def command(
    a: _A,
    b: _B = None,
    suite: _Suite = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Test images for the suite. Default: its own number.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")] = "auto",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure under the suite also what official results say.")
    ] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Compare two models over their seeds, without attack or under a suite.

    For each seed the accuracies with 95 % intervals, the paired difference and McNemar's test; over the seeds
    the mean difference with its t interval. Without a suite stored verdicts on all test images are compared,
    so weights are needed only of a release that has none. With one, each attack has a row and a verdict, and
    seeds are measured of which there is no official result.

    Examples:

    * `tdsnn-zoo compare tsresnet18` compares all its seeds with their twins

    * `tdsnn-zoo compare 'tsresnet18.fashion_mnist-s*' 'sresnet18.fashion_mnist-s*' --json`

    * `tdsnn-zoo compare tsresnet18.fashion_mnist --suite standard-v1`

    * `tdsnn-zoo compare tsresnet18.fashion_mnist-s1 sresnet18.fashion_mnist-s1`
    """
    from tdsnn.benchmark.comparing import compare

    with _progress.bar(unit="images") as progress:
        found = compare(
            a, b, suite=suite, n=n, device=device, fresh=fresh, progress=progress, note=_output.note
        )
    if as_json:
        _output.emit_json(found.document())
        return
    from tdsnn.benchmark.seed_tables import tables
    from tdsnn.benchmark.seeds import SeedComparison

    if not isinstance(found, SeedComparison):
        _output.show(found.table())
        return
    for table in tables(found):
        _output.show(table)
    _output.console().print(found.conclusion.text, markup=False, soft_wrap=True)
