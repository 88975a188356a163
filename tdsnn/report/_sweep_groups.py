"""Groups of a sweep's runs: one entry under one label, over its seeds, with means and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tdsnn import manifest as manifests
from tdsnn.errors import UsageError
from tdsnn.report._sweep_documents import SweepRun
from tdsnn.schema import Manifest
from tdsnn.stats import t_interval

_STUDENT = "Student t over seeds, 95 %"


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds."""

    value: float
    interval: tuple[float, float] | None
    """95 %; None with one seed, except for accuracies."""
    n: int
    """Seeds."""
    method: str | None
    """How the interval was computed."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy minus that of the baseline on the same seeds, percentage points."""

    mean: Mean
    seeds: tuple[int, ...]
    """Those that both have."""
    p_value: float | None
    """Paired t-test, two-sided; None with one seed."""
    p_holm: float | None
    """Adjusted over the groups that have one."""


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One run of a group."""

    seed: int
    accuracy: float
    """Percent of the held-out images."""
    alignment: float | None
    """P(r, d), mean over the layers of the report; None if no layer is left."""
    smoothness: float | None
    """Category smoothness, mean over the layers of the report; None where it was not measured."""
    cpu_minutes: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """All seeds of one entry under one label."""

    name: str
    """Its label or, without one, its entry; both where that is not unique."""
    entry: str
    label: str
    settings: tuple[str, ...]
    topographic: bool | None
    """Whether a spatial loss shaped the weights; None for an entry that the zoo does not have."""
    n: int
    """Held-out images."""
    seeds: tuple[Seed, ...]
    """By number."""
    accuracy: Mean
    """Percent."""
    cpu_minutes: Mean
    alignment: Mean | None
    smoothness: Mean | None
    difference: Difference | None = None
    """None for the baseline, and for a group without a seed or the images in common with it."""


def group_of(name: str, runs: Sequence[SweepRun], *, aligned: Sequence[str], smooth: Sequence[str]) -> Group:
    """The group of some runs, by seed.

    Args:
        aligned, smooth: layers that the means of P(r, d) and of category smoothness are over.

    Raises:
        UsageError: the runs have different settings or numbers of images.
    """
    runs = sorted(runs, key=lambda run: run.seed)
    first = runs[0]
    for what, values in (
        ("settings", {run.settings for run in runs}),
        ("numbers of held-out images", {run.accuracy.n for run in runs}),
    ):
        if len(values) > 1:
            raise UsageError(
                f"The runs of '{name}' have different {what}, so they have no common mean.",
                hint="Give them different labels in the sweep file.",
            )
    seeds = tuple(
        Seed(
            seed=run.seed,
            accuracy=run.accuracy.value,
            alignment=_over_layers(run.alignment, aligned),
            smoothness=_over_layers(run.smoothness, smooth),
            cpu_minutes=run.cpu_seconds / 60,
        )
        for run in runs
    )
    accuracy = mean([one.accuracy for one in seeds])
    if len(runs) == 1:
        lone = first.accuracy
        accuracy = replace(accuracy, interval=(lone.low, lone.high), method=lone.method)
    return Group(
        name=name,
        entry=first.entry,
        label=first.label,
        settings=first.settings,
        topographic=_topographic(first),
        n=first.accuracy.n,
        seeds=seeds,
        accuracy=accuracy,
        cpu_minutes=mean([one.cpu_minutes for one in seeds]),
        alignment=_complete(seeds, lambda one: one.alignment),
        smoothness=_complete(seeds, lambda one: one.smoothness),
    )


def _over_layers(values: Mapping[str, float | None] | None, layers: Sequence[str]) -> float | None:
    found = [value for layer in layers if values and (value := values[layer]) is not None]
    return fmean(found) if found else None


def _complete(seeds: Sequence[Seed], value: Callable[[Seed], float | None]) -> Mean | None:
    """The mean where every seed has the value: otherwise it would be over other seeds than its row says."""
    found = [one for seed in seeds if (one := value(seed)) is not None]
    return mean(found) if len(found) == len(seeds) else None


def mean(values: Sequence[float]) -> Mean:
    """Mean of one or more values, with its t interval where there are two."""
    n = len(values)
    found = t_interval(values) if n > 1 else None
    return Mean(
        value=fmean(values),
        interval=(found.low, found.high) if found else None,
        n=n,
        method=_STUDENT if found else None,
    )


def manifest_of(entry: str) -> Manifest | None:
    """The entry's manifest; None for one that this zoo does not have."""
    try:
        return manifests.resolve(entry)
    except UsageError:
        return None


def _topographic(run: SweepRun) -> bool | None:
    manifest = manifest_of(run.entry)
    if manifest is None:
        return None
    weights = {"alpha": manifest.topography.alpha, "beta": manifest.topography.beta, **run.weights}
    return any(weight > 0 for weight in weights.values())
