"""``tdsnn-zoo compare``: two models over their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn.cli import _output, _progress
from tdsnn.cli._bench_table import interval, p_value, short

if TYPE_CHECKING:
    from tdsnn.bench.seeds import OverSeeds, SeedComparison
    from tdsnn.verdicts import CleanVerdicts

_NONE = "-"

_A = Annotated[
    str,
    typer.Argument(
        help="A full name, exactly that one; a bare name, the default variant and all its seeds; quoted, "
        "'NAME-s*', all seeds of that entry, or any other pattern of one entry's seeds."
    ),
]
_B = Annotated[
    str | None,
    typer.Argument(help="What it is compared with, named in the same way. Default: the twins of A."),
]


def command(a: _A, b: _B = None, as_json: _output.JsonFlag = False) -> None:
    """Compare two models over their seeds, on all test images and without attack.

    For each seed the accuracies with 95 % intervals, the paired difference and McNemar's test; over the seeds
    the mean difference with its t interval. Stored verdicts are compared, so weights are needed only of a
    release that has none.

    Examples:

    * `tdsnn-zoo compare tsresnet18` compares all its seeds with their twins

    * `tdsnn-zoo compare 'tsresnet18.fashion_mnist-s*' 'sresnet18.fashion_mnist-s*' --json`

    * `tdsnn-zoo compare tsresnet18.fashion_mnist-s1 sresnet18.fashion_mnist-s1`
    """
    # Before anything that imports numpy: a mistyped name is answered at once.
    from tdsnn.bench.pairing import pair_seeds

    pairing = pair_seeds(a, b)
    if pairing.left_out:
        _output.note(f"Left out, since the other model lacks that seed: {', '.join(pairing.left_out)}")

    from tdsnn.bench.seeds import compare_seeds, stored_verdicts

    known, lacking = stored_verdicts(pairing.releases)
    if lacking:
        known |= _measure(lacking, pairing.dataset)
    found = compare_seeds(pairing, known)
    if as_json:
        _output.emit_json(found.document())
    else:
        _show(found)


def _measure(names: Sequence[str], dataset: str) -> Mapping[str, CleanVerdicts]:
    import torch

    from tdsnn.bench.clean import clean_verdicts
    from tdsnn.bench.entries import load_entries
    from tdsnn.data._base import load_split
    from tdsnn.kernels._library import NOTICE

    _output.note(f"No stored verdicts of {', '.join(names)}: measured now, and kept in the cache.")
    test = load_split(dataset, "test")
    _output.note(NOTICE)
    entries = load_entries(names, device=torch.device("cpu"), compiled=True).entries
    with _progress.images(len(entries) * len(test.labels)) as progress:
        return clean_verdicts(entries, dataset=dataset, test=test, progress=progress)


def _show(found: SeedComparison) -> None:
    names = [short(name) for name in (found.a, found.b)]
    if names[0] == names[1]:
        names = [found.a, found.b]
    columns = ["seed", *(f"{name} %" for name in names), "difference"]
    columns += [*(f"only {name}" for name in names), "p"]
    rows = [
        [
            str(row.seed),
            *(interval(network.accuracy, digits=2) for network in (row.a, row.b)),
            interval(row.difference, "+", digits=2),
            str(row.only_a),
            str(row.only_b),
            p_value(row.p_holm),
        ]
        for row in found.seeds
    ]
    if found.accuracy:
        rows.append(_mean_row(found.accuracy, lacking=2))
    title = f"{found.a} and {found.b} on {found.dataset}, n = {found.n}"
    _output.table(title, columns, rows, caption=_caption(found))
    _show_alignment(found, names)
    _output.console().print(found.conclusion.text, markup=False, soft_wrap=True)


def _show_alignment(found: SeedComparison, names: Sequence[str]) -> None:
    over_seeds = found.alignment is not None
    rows = [
        [
            str(row.seed),
            *(f"{network.alignment:.3f}" for network in (row.a, row.b)),
            f"{row.alignment_difference:+.3f}",
            *[_NONE] * over_seeds,
        ]
        for row in found.seeds
        if row.alignment_difference is not None
    ]
    if not rows:
        return
    if found.alignment:
        rows.append(_mean_row(found.alignment, digits=3))
    _output.table(
        "P(r, d), mean over layers",
        ["seed", *names, "difference", *["p"] * over_seeds],
        rows,
        caption="P(r, d): correlation of similarity of firing with proximity, on the first test images, as "
        "released.",
    )


def _mean_row(means: OverSeeds, *, lacking: int = 0, digits: int = 2) -> list[str]:
    figures = [interval(figure, digits=digits) for figure in (means.a, means.b)]
    difference = interval(means.difference, "+", digits=digits)
    return [f"mean of {means.difference.n}", *figures, difference, *[_NONE] * lacking, p_value(means.p_value)]


def _caption(found: SeedComparison) -> str:
    text = (
        "Accuracy with 95 % Wilson interval; difference in percentage points, paired, 95 % Tango interval; "
        "only: images that this model alone gets right; p: exact McNemar"
    )
    if not found.accuracy:
        return f"{text}."
    return f"{text}, Holm over the seeds.\nmean: 95 % Student t interval over seeds; p: paired t-test."
