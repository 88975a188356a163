"""Tables of two models compared over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tdsnn.table import Table, interval, p_value, p_values, short

if TYPE_CHECKING:
    from tdsnn.benchmark.seeds import OverSeeds, SeedComparison

__all__ = ["tables"]

_NONE = "-"


def tables(found: SeedComparison) -> tuple[Table, ...]:
    """Accuracy, and where it is known the correlation of responses with proximity."""
    names = [short(name) for name in (found.a, found.b)]
    if names[0] == names[1]:
        names = [found.a, found.b]
    return (_accuracy(found, names), *_alignment(found, names))


def _accuracy(found: SeedComparison, names: Sequence[str]) -> Table:
    columns = ["seed", *(f"{name} %" for name in names), "difference"]
    columns += [*(f"only {name}" for name in names), "p"]
    rows = [
        [
            str(row.seed),
            *(interval(network.accuracy, digits=2) for network in (row.a, row.b)),
            interval(row.difference, "+", digits=2),
            str(row.only_a),
            str(row.only_b),
            p_value(row.p_mcnemar, row.p_holm),
        ]
        for row in found.seeds
    ]
    if found.accuracy:
        rows.append(_mean_row(found.accuracy, lacking=2))
    title = f"{found.a} and {found.b} on {found.dataset}, n = {found.n}"
    return Table(title=title, columns=columns, rows=rows, caption=_caption(found))


def _alignment(found: SeedComparison, names: Sequence[str]) -> tuple[Table, ...]:
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
        return ()
    if found.alignment:
        rows.append(_mean_row(found.alignment, digits=3))
    shown = Table(
        title="P(r, d), mean over layers",
        columns=["seed", *names, "difference", *["p"] * over_seeds],
        rows=rows,
        caption="P(r, d): correlation of similarity of firing with proximity, on the first test images, as "
        "released.",
    )
    return (shown,)


def _mean_row(means: OverSeeds, *, lacking: int = 0, digits: int = 2) -> list[str]:
    figures = [interval(figure, digits=digits) for figure in (means.a, means.b)]
    difference = interval(means.difference, "+", digits=digits)
    return [f"mean of {means.difference.n}", *figures, difference, *[_NONE] * lacking, p_value(means.p_value)]


def _caption(found: SeedComparison) -> str:
    text = (
        "Accuracy with 95 % Wilson interval; difference in percentage points, paired, 95 % Tango interval; "
        f"only: images that this model alone gets right; {p_values('exact McNemar', len(found.seeds))}."
    )
    return f"{text}\nmean: 95 % Student t interval over seeds; p: paired t-test." if found.accuracy else text
