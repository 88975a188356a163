"""Two entries compared over their seeds, from stored verdicts on the same test images.

Each seed gives a pair of networks: accuracies, their paired difference, McNemar's test. They say how sure the
difference of these two networks is on other images. How sure it is for other trainings only the seeds say:
mean difference, its t interval and the paired t-test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from statistics import fmean
from typing import Any

from tdsnn import store, verdicts
from tdsnn.benchmark.pairing import Pairing
from tdsnn.benchmark.seed_tables import tables
from tdsnn.errors import IntegrityError, MissingError
from tdsnn.results import Figure, difference_figure
from tdsnn.schema import Release, plain
from tdsnn.stats import (
    EQUIVALENCE_MARGIN,
    Interval,
    equivalent,
    holm,
    paired_mean_difference,
    t_interval,
)
from tdsnn.tasks._base import TASKS
from tdsnn.verdicts import CleanVerdicts

SCHEMA = 1
RATE_ALIGNMENT = "P(r, d)"
"""Metric of a release: correlation of rate similarity with proximity, by layer."""
_STUDENT = "Student t over seeds, 95 %"
_POINTS = "percentage points"


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a pair."""

    name: str
    weights_sha256: str
    accuracy: Figure
    """Percent of the test images."""
    alignment: float | None
    """P(r, d), mean over the layers of the release; None where it is not shown."""


@dataclass(frozen=True, kw_only=True)
class SeedPair:
    """Both networks of one seed."""

    seed: int
    a: Network
    b: Network
    difference: Figure
    """A minus B, percentage points."""
    only_a: int
    """Images that A alone gets right."""
    only_b: int
    p_mcnemar: float
    p_holm: float
    """Adjusted over the seeds."""
    alignment_difference: float | None


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """Means over the seeds, each with its t interval."""

    a: Figure
    b: Figure
    difference: Figure
    p_value: float
    """Paired t-test, two-sided."""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What the interval over seeds says."""

    verdict: str
    """``equivalent``, ``better``, ``worse``, ``undecided`` or ``one seed``, said of A."""
    text: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SeedComparison:
    """Everything that is known about A and B; its text is tables and the conclusion."""

    a: str
    b: str
    dataset: str
    data_digest: str
    n: int
    """Test images."""
    seeds: tuple[SeedPair, ...]
    accuracy: OverSeeds | None
    """Percent; None with one seed."""
    alignment: OverSeeds | None
    """Of P(r, d); None with one seed, or where it is not shown."""
    left_out: tuple[str, ...]
    conclusion: Conclusion

    def document(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {"schema": SCHEMA, **plain(self), "equivalence_margin_points": EQUIVALENCE_MARGIN}

    def __repr__(self) -> str:
        return "\n\n".join([*map(str, tables(self)), self.conclusion.text])


def stored_verdicts(releases: Iterable[Release]) -> tuple[dict[str, CleanVerdicts], list[str]]:
    """Name to verdicts where they are stored, and the names that have to be measured.

    Raises:
        MissingError: neither the verdicts of a release can be had nor its weights.
        IntegrityError: stored verdicts are damaged.
    """
    found: dict[str, CleanVerdicts] = {}
    lacking = []
    for release in releases:
        stored = verdicts.read(release)
        if stored is not None:
            found[release.name] = stored
        elif store.source_of(release) is None:
            raise MissingError(
                f"Neither the verdicts of '{release.name}' on the test images nor its weights can be had.",
                hint=f"Train it and publish the run: tdsnn-zoo train {quote(release.name)}",
            )
        else:
            lacking.append(release.name)
    return found, lacking


def compare_seeds(pairing: Pairing, known: Mapping[str, CleanVerdicts]) -> SeedComparison:
    """Compare two entries.

    Args:
        known: full name to verdicts, for all networks of the pairing.

    Raises:
        IntegrityError: the verdicts are about different images.
    """
    images = {
        release.name: (known[release.name].data_digest, known[release.name].scores.size)
        for release in pairing.releases
    }
    first, (digest, n) = next(iter(images.items()))
    for name, found in images.items():
        if found != (digest, n):
            raise IntegrityError(
                f"The verdicts of '{name}' are about other images than those of '{first}'.",
                hint="Publish the older run again: tdsnn-zoo publish RUN_DIR",
            )
    rows = _rows(pairing, known)
    accuracies = ([row.a.accuracy.value for row in rows], [row.b.accuracy.value for row in rows])
    alignments = ([row.a.alignment for row in rows], [row.b.alignment for row in rows])
    accuracy = over_seeds(*accuracies, units=("%", _POINTS))
    return SeedComparison(
        a=pairing.a,
        b=pairing.b,
        dataset=pairing.dataset,
        data_digest=digest,
        n=n,
        seeds=rows,
        accuracy=accuracy,
        alignment=over_seeds(*alignments, units=("correlation", "correlation")),
        left_out=pairing.left_out,
        conclusion=_conclude(pairing, accuracy),
    )


def _rows(pairing: Pairing, known: Mapping[str, CleanVerdicts]) -> tuple[SeedPair, ...]:
    task = TASKS.load(next(iter(known.values())).task)
    found = [
        (seed, releases, task.compare(*(known[release.name].scores for release in releases)))
        for seed, releases in pairing.pairs.items()
    ]
    adjusted = holm([difference.p_value for *_, difference in found])
    rows = []
    for (seed, releases, difference), p_holm in zip(found, adjusted, strict=True):
        a, b = (_network(release, known[release.name], twins=pairing.twins) for release in releases)
        rows.append(
            SeedPair(
                seed=seed,
                a=a,
                b=b,
                difference=difference_figure(difference),
                only_a=difference.only_a,
                only_b=difference.only_b,
                p_mcnemar=difference.p_value,
                p_holm=p_holm,
                alignment_difference=(
                    None if a.alignment is None or b.alignment is None else a.alignment - b.alignment
                ),
            )
        )
    return tuple(rows)


def _network(release: Release, found: CleanVerdicts, *, twins: bool) -> Network:
    layers = release.metrics.get(RATE_ALIGNMENT, {}).get("layers") if twins else None
    return Network(
        name=release.name,
        weights_sha256=found.weights_sha256,
        accuracy=TASKS.load(found.task).figure(found.scores),
        alignment=fmean(layers.values()) if layers else None,
    )


def over_seeds(
    a: Sequence[float | None], b: Sequence[float | None], *, units: tuple[str, str]
) -> OverSeeds | None:
    """Means of both and of their difference; None for one seed, or where a value lacks."""
    ours, theirs = ([value for value in side if value is not None] for side in (a, b))
    if not 1 < len(a) == len(ours) == len(theirs):
        return None
    found = paired_mean_difference(ours, theirs)
    return OverSeeds(
        a=_mean(fmean(ours), t_interval(ours), units[0], n=found.n),
        b=_mean(fmean(theirs), t_interval(theirs), units[0], n=found.n),
        difference=_mean(found.difference, found.interval, units[1], n=found.n),
        p_value=found.p_value,
    )


def _mean(value: float, interval: Interval, unit: str, *, n: int) -> Figure:
    return Figure(value=value, low=interval.low, high=interval.high, unit=unit, n=n, method=_STUDENT)


def _conclude(pairing: Pairing, accuracy: OverSeeds | None) -> Conclusion:
    if accuracy is None:
        text = "One seed says nothing about other trainings: for that, publish more seeds of both."
        return Conclusion(verdict="one seed", text=text)
    found = accuracy.difference
    over = f"over {found.n} seeds"
    reach = f"the 95 % interval of the difference reaches from {found.low:+.2f} to {found.high:+.2f} points"
    differ = not found.low <= 0 <= found.high
    if equivalent(Interval(found.low, found.high)):
        also = ", and excludes 0" if differ else ""
        return Conclusion(
            verdict="equivalent",
            text=f"{pairing.a} and {pairing.b} are equivalent within {EQUIVALENCE_MARGIN:g} point {over}: "
            f"{reach}{also}.",
        )
    if differ:
        verdict = "better" if found.value > 0 else "worse"
        text = f"{pairing.a} is {verdict} than {pairing.b} by {abs(found.value):.2f} points {over}: {reach}."
        return Conclusion(verdict=verdict, text=text)
    return Conclusion(verdict="undecided", text=f"Undecided {over}: {reach}.")
