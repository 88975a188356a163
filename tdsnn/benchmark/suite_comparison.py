"""Two entries compared under the attacks of a suite, over their seeds, with a plain verdict for each row.

With one seed the rows are about these two networks: paired difference, Tango's interval, exact McNemar. With
several they are about the recipes: mean of the paired differences, Student's t interval and the paired t-test
over seeds. Either way the verdicts go by p adjusted by Holm over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdsnn.benchmark.pairing import Pairing
from tdsnn.benchmark.seeds import over_seeds
from tdsnn.results import Cell, Comparison, Figure, Place, Result
from tdsnn.schema import plain
from tdsnn.stats import holm
from tdsnn.table import MARK, SIGNIFICANT, Table, interval, p_value, p_values, short, titled


@dataclass(frozen=True, kw_only=True)
class Row:
    """One attack of one strength."""

    attack: str
    """As it is typed."""
    norm: str | None
    eps_255: float
    a: Figure
    b: Figure
    difference: Figure
    """A minus B, percentage points."""
    p: float
    p_holm: float
    verdict: str
    """``no difference shown``, or which is better by how much."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SuiteComparison:
    """Everything that a suite says about A and B; its text is a table."""

    a: str
    b: str
    dataset: str
    suite: Mapping[str, Any]
    n: int
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    masked: tuple[str, ...]
    """Networks that failed a test for masked gradients."""
    left_out: tuple[str, ...]
    official: tuple[int, ...]
    """Seeds of which official results say it all, so that nothing was measured."""

    def document(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {"schema": 1, **plain(self)}

    def table(self) -> Table:
        """One row for each attack and strength."""
        names = [short(name) for name in (self.a, self.b)]
        if names[0] == names[1]:
            names = [self.a, self.b]
        mark = MARK if self.masked else ""
        rows = [
            [
                row.attack if row.norm is None and not row.eps_255 else f"{row.attack} {row.eps_255:g}",
                interval(row.a) + mark * (row.norm is not None),
                interval(row.b) + mark * (row.norm is not None),
                interval(row.difference, "+"),
                p_value(row.p, row.p_holm),
                row.verdict,
            ]
            for row in self.rows
        ]
        return Table(
            title=f"{self.a} and {self.b} on {self.dataset}, suite {self.suite['name']}, n = {self.n}",
            columns=["attack, /255", *(f"{name} %" for name in names), "difference", "p", "verdict"],
            rows=rows,
            caption=self._caption(),
        )

    def _caption(self) -> str:
        lines = []
        if len(self.seeds) > 1:
            lines.append(
                f"Means over {len(self.seeds)} seeds with 95 % Student t interval; "
                f"{p_values('paired t-test over seeds', len(self.rows))}."
            )
        else:
            lines.append(
                "One seed: the rows are about these two networks, not about other trainings. Accuracy "
                "with 95 % Wilson interval, paired difference with 95 % Tango interval; "
                f"{p_values('exact McNemar', len(self.rows))}."
            )
        if self.official:
            seeds = ", ".join(map(str, self.official))
            lines.append(f"Official results of seed {seeds}; --fresh measures anew.")
        if self.masked:
            lines.append(f"{MARK} Failed a test for masked gradients: {', '.join(self.masked)}.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self.table())


def compare_suite(
    pairing: Pairing, results: Mapping[int, Result], *, official: Sequence[int] = ()
) -> SuiteComparison:
    """Join one result for each seed, which compares both networks of that seed under the same suite.

    A row that lacks a number in one of them is left out.

    Args:
        official: seeds whose result is an official one.
    """
    seeds = tuple(pairing.pairs)
    found = []
    for place in _places(results[seeds[0]]):
        cells = [_pair(results[seed], pairing, seed, place) for seed in seeds]
        compared = [_comparison(results[seed], pairing, seed, place) for seed in seeds]
        if all(one is not None for one in compared):
            found.append((place, cells, [one for one in compared if one is not None]))
    measured = [_measured(cells, compared) for _, cells, compared in found]
    adjusted = holm([p for *_, p in measured])
    names = [short(name) for name in (pairing.a, pairing.b)]
    rows = []
    for (place, cells, _), (a, b, difference, p), p_holm in zip(found, measured, adjusted, strict=True):
        rows.append(
            Row(
                attack=titled(place.attack, place.variant),
                norm=cells[0][0].norm,
                eps_255=place.eps_255,
                a=a,
                b=b,
                difference=difference,
                p=p,
                p_holm=p_holm,
                verdict=_verdict(difference, p_holm, names),
            )
        )
    first = results[seeds[0]]
    return SuiteComparison(
        a=pairing.a,
        b=pairing.b,
        dataset=pairing.dataset,
        suite=first.settings["suite"],
        n=first.settings["n"],
        seeds=seeds,
        rows=tuple(rows),
        masked=tuple(
            str(model["name"])
            for seed, result in results.items()
            for model in result.models
            if model["masking_signs"] and model["name"] in pairing.names(seed)
        ),
        left_out=pairing.left_out,
        official=tuple(official),
    )


def _places(result: Result) -> list[Place]:
    return list(dict.fromkeys(cell.place for cell in result.cells))


def _pair(result: Result, pairing: Pairing, seed: int, place: Place) -> tuple[Cell, Cell]:
    cells = {(cell.model, cell.place): cell for cell in result.cells}
    a, b = pairing.names(seed)
    return cells[a, place], cells[b, place]


def _comparison(result: Result, pairing: Pairing, seed: int, place: Place) -> Comparison | None:
    """Of A minus B."""
    both = (one for each in result.comparisons if each.place == place for one in (each, each.turned))
    return next((one for one in both if (one.model, one.twin) == pairing.names(seed)), None)


def _measured(
    cells: Sequence[tuple[Cell, Cell]], compared: Sequence[Comparison]
) -> tuple[Figure, Figure, Figure, float]:
    """Both accuracies, their difference and its p, not adjusted."""
    a, b = (
        [cell.accuracy for cell in side if cell.accuracy is not None] for side in zip(*cells, strict=True)
    )
    if len(compared) == 1:
        return a[0], b[0], compared[0].difference, compared[0].p_mcnemar
    ours, theirs = ([figure.value for figure in side] for side in (a, b))
    means = over_seeds(ours, theirs, units=("%", "percentage points"))
    assert means is not None, "there are several seeds, and a number of each"
    return means.a, means.b, means.difference, means.p_value


def _verdict(difference: Figure, p_holm: float, names: Sequence[str]) -> str:
    if p_holm >= SIGNIFICANT:
        return "no difference shown"
    better, sign = (names[0], 1) if difference.value > 0 else (names[1], -1)
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{better} better by {abs(difference.value):.1f} points, 95 % {low:.1f} to {high:.1f}"
