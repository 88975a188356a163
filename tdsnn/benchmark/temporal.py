"""What the time metrics of a plan find in each model, and how a topographic model differs from its twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.benchmark.batches import Run
from tdsnn.benchmark.compare import pairs
from tdsnn.benchmark.measure import within_memory
from tdsnn.benchmark.plan import ModelEntry, Plan, measurement_key
from tdsnn.benchmark.shards import Shard
from tdsnn.data._base import DATASETS
from tdsnn.errors import GateError, UsageError
from tdsnn.results import Figure, Shift
from tdsnn.stats import holm, paired_bootstrap, paired_mean_difference
from tdsnn.table import titled
from tdsnn.temporal._base import Subject, TimeMetric

Record = dict[str, Any]
Samples = Mapping[str, NDArray[Any]]


@dataclass
class Measured:
    """All that the metrics found."""

    measurements: list[Record] = field(default_factory=list)
    timings: list[Record] = field(default_factory=list)
    """Of metrics with a clock: not the same in two equal runs."""
    samples: dict[str, NDArray[Any]] = field(default_factory=dict)
    """``MODEL/METRIC[:VARIANT]/KEY`` to (n,)."""
    shifts: list[Shift] = field(default_factory=list)


def measure_time(run: Run, entries: Sequence[ModelEntry], *, refused: Mapping[str, str | None]) -> Measured:
    """One record for each model and metric; what is stored is not measured again.

    A record without figures says why: the metric says nothing of such a network (``missing``), or a gate
    refused it, its layers do not fit or memory ran out (``error``).

    Args:
        refused: name of a model to why it has no number at all.

    Raises:
        IntegrityError: a stored record is damaged.
    """
    found = Measured()
    for metric in run.plan.metrics:
        records, samples = {}, {}
        for entry in entries:
            name = entry.name
            records[name], samples[name] = _record(run, entry, metric, refused[name])
            stem = f"{name}/{titled(metric.name, metric.variant)}"
            found.samples |= {f"{stem}/{key}": values for key, values in samples[name].items()}
        (found.measurements if metric.repeatable else found.timings).extend(records.values())
        for model, twin in pairs(entries):
            found.shifts += _shifts(run.plan, records[model], twin, samples[model], samples[twin])
    return found


def measure_share(
    run: Run, entries: Sequence[ModelEntry], shard: Shard, *, refused: Mapping[str, str | None]
) -> list[str]:
    """Measure and store a shard's part of the metrics; what has no number, and why.

    Args:
        refused: as of :func:`measure_time`.
    """
    failed = []
    for metric, entry in shard.of([(metric, entry) for metric in run.plan.metrics for entry in entries]):
        record, _ = _record(run, entry, metric, refused[entry.name])
        if record["error"] is not None:
            failed.append(f"{metric.name} of {entry.name}: {record['error']}")
    return failed


def _record(run: Run, entry: ModelEntry, metric: TimeMetric, refused: str | None) -> tuple[Record, Samples]:
    key = measurement_key(run.plan, entry, metric)
    about = {
        "key": key,
        "model": entry.name,
        "metric": metric.name,
        "variant": metric.variant,
        "settings": metric.settings,
    }
    label = f"{entry.name}: {titled(metric.name, metric.variant)}"
    run.progress(0, label)
    try:
        if refused is not None:
            raise GateError(refused)
        found, samples = run.team.once(partial(_measured, run, entry, metric, key))
        error = None
    except (GateError, UsageError) as refusal:
        # Settings were held against the model before: what does not fit now is the network itself.
        found, samples, error = {}, {}, refusal.message
    run.progress(run.plan.n, label)
    empty: Record = {"figures": {}, "curves": {}, "missing": {}, "conditions": {}}
    return {**about, **empty, **found, "error": error}, samples


def _measured(run: Run, entry: ModelEntry, metric: TimeMetric, key: str) -> tuple[Record, Samples]:
    """Figures and the rest as plain values, and samples: as stored, else measured now and stored."""
    plan = run.plan
    if objection := metric.objection(entry.model):
        return {"missing": {metric.name: objection}}, {}
    if not run.fresh and (stored := run.folder.read_measurement(key)):
        run.reused.append(key)
        return stored
    subject = Subject(
        model=entry.model,
        split=plan.split,
        n=plan.n,
        batch_size=plan.batch_size,
        seed=plan.seed,
        device=plan.device,
        dataset=plan.dataset if plan.dataset in DATASETS.names() else "",
    )
    with within_memory():
        found = metric.measure(subject)
    document = {
        "figures": {name: asdict(figure) for name, figure in found.figures.items()},
        "curves": {name: asdict(curve) for name, curve in found.curves.items()},
        "missing": dict(found.missing),
        "conditions": dict(found.conditions),
    }
    run.folder.write_measurement(key, document, found.samples)
    # As read, so that a run and one that goes on give the same document.
    stored = run.folder.read_measurement(key)
    assert stored is not None
    return stored


def _shifts(plan: Plan, record: Record, twin: str, ours: Samples, theirs: Samples) -> list[Shift]:
    """Of every key that both models have samples of: the mean difference, topographic minus twin, with a
    bootstrap over images, and a paired t-test, adjusted by Holm over these keys.

    Args:
        record: of the topographic model.
    """
    keys = [key for key in record["figures"] if key in ours and key in theirs]
    if not keys or plan.n < 2:
        return []
    differences = np.stack([np.float64(ours[key]) - np.float64(theirs[key]) for key in keys], 1)
    intervals = paired_bootstrap(differences, seed=plan.seed)
    tests = [paired_mean_difference(ours[key].tolist(), theirs[key].tolist()) for key in keys]
    adjusted = holm([test.p_value for test in tests])
    return [
        Shift(
            model=record["model"],
            twin=twin,
            metric=record["metric"],
            variant=record["variant"],
            key=key,
            difference=Figure(
                value=test.difference,
                low=interval.low,
                high=interval.high,
                unit=record["figures"][key]["unit"],
                n=plan.n,
                method="bootstrap over images, 95 %",
            ),
            p=test.p_value,
            p_holm=p_holm,
        )
        for key, test, interval, p_holm in zip(keys, tests, intervals, adjusted, strict=True)
    ]
