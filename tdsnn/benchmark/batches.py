"""The scores of one cell, batch after batch, going on from what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._spec import AttackSpec
from tdsnn.benchmark.plan import ModelEntry, Plan, cell_key
from tdsnn.benchmark.shards import Shard
from tdsnn.files import digest_of
from tdsnn.processes import ALONE, Team
from tdsnn.result_folder import ResultFolder, Scores
from tdsnn.table import titled

Progress = Callable[[int, str], None]
"""Called with the number of images just finished and what is running."""
Gates = tuple[Mapping[str, Any], ...]
Compute = Callable[[range, Tensor, Tensor], Tensor]
"""Scores (N,) of a batch: its place in the split, images (N, C, H, W) in [0, 1], and classes (N,)."""


@dataclass
class Run:
    """What a run has so far; the tables are by cell key."""

    plan: Plan
    folder: ResultFolder
    fresh: bool
    progress: Progress
    team: Team = ALONE
    """The processes that share the batches; the folder is the first one's."""
    shard: Shard | None = None
    """The part of the batches to compute, each into a file of its own; None: all of them."""
    scores: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Of a shard, the lowest score outside its batches."""
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One cell that is wanted, and what is stored of it."""

    entry: ModelEntry
    spec: AttackSpec | None
    strength: float
    before: NDArray[Any] | None
    """Scores (n,) that other attacks have left, if this one is spent on survivors only."""
    key: str
    key_on_all: str
    """Of the cell if the attack were spent on all samples."""
    stored: Scores | None

    @property
    def label(self) -> str:
        if self.spec is None:
            return f"{self.entry.name}: clean"
        return f"{self.entry.name}: {titled(self.spec.name, self.spec.variant)} {self.strength:g}"

    def done(self, n: int) -> bool:
        return self.stored is not None and self.stored.values.size == n


def find_job(
    run: Run,
    entry: ModelEntry,
    spec: AttackSpec | None = None,
    strength: float = 0.0,
    *,
    before: NDArray[Any] | None = None,
) -> Job:
    """A cell, with what the folder has of it unless the run is to be fresh.

    Raises:
        IntegrityError: that is damaged.
    """
    plan, on_all = run.plan, cell_key(run.plan, entry, spec, strength)
    key = on_all if before is None else cell_key(plan, entry, spec, strength, before=before)
    read = partial(run.folder.read_cell, key, plan.n, batch_size=plan.batch_size)
    stored = None if run.fresh else run.team.once(read)
    return Job(
        entry=entry, spec=spec, strength=strength, before=before, key=key, key_on_all=on_all, stored=stored
    )


def score(run: Run, job: Job, gates: Gates, compute: Compute) -> NDArray[Any]:
    """Scores (n,) of a cell, which the run gets too.

    Raises:
        IntegrityError: a stored batch is damaged.
    """
    if job.stored is not None:
        (run.reused if job.done(run.plan.n) else run.resumed).append(job.key)
    whole = run.shard is None or job.done(run.plan.n)
    found = _whole(run, job, gates, compute) if whole else _share(run, job, gates, compute)
    run.scores[job.key], run.seconds[job.key] = found.values, found.seconds
    return found.values


def _whole(run: Run, job: Job, gates: Gates, compute: Compute) -> Scores:
    """All batches; finished ones, one of each process, are stored before the next begin."""
    found = job.stored
    run.progress(0 if found is None else found.values.size, job.label)
    left = [batch for batch in run.plan.batches() if found is None or batch.stop > found.values.size]
    for batches in _at_a_time(left, run.team.size):
        parts = _parts(run, job, batches, gates, compute)
        parts = parts if found is None else [found, *parts]
        found = Scores(
            values=np.concatenate([part.values for part in parts]),
            seconds=round(sum(part.seconds for part in parts), 3),
            gates=gates,
        )
        run.team.once(partial(run.folder.write_cell, job.key, found))
        run.progress(sum(map(len, batches)), job.label)
    assert found is not None
    return found


def _share(run: Run, job: Job, gates: Gates, compute: Compute) -> Scores:
    """A shard's batches; elsewhere the lowest score."""
    assert run.shard is not None
    values, seconds = np.full(run.plan.n, run.plan.task.floor, dtype=np.float64), 0.0
    run.progress(0, job.label)
    for batches in _at_a_time(run.shard.of(run.plan.batches()), run.team.size):
        parts = _parts(run, job, batches, gates, compute)
        for batch, part in zip(batches, parts, strict=True):
            values = values.astype(part.values.dtype, copy=False)
            values[batch.start : batch.stop] = part.values
            seconds += part.seconds
        run.progress(sum(map(len, batches)), job.label)
    return Scores(values=values, seconds=seconds, gates=gates)


def _at_a_time(batches: Sequence[range], count: int) -> list[Sequence[range]]:
    return [batches[start : start + count] for start in range(0, len(batches), count)]


def _parts(run: Run, job: Job, batches: Sequence[range], gates: Gates, compute: Compute) -> list[Scores]:
    """Scores of some batches, as a shard has left them in the folder or else computed now; a shard leaves
    each in a file of its own."""

    def stored() -> list[Scores | None]:
        size = run.plan.batch_size
        return [run.folder.read_cell(_key(job, one), len(one), batch_size=size) for one in batches]

    found = [None] * len(batches) if run.fresh else run.team.once(stored)
    missing = [batch for batch, part in zip(batches, found, strict=True) if part is None]
    if len(missing) < len(batches) and job.key not in run.resumed:
        run.resumed.append(job.key)
    computed = run.team.shared(missing, partial(_timed, run.plan, gates, compute))
    if run.shard is not None:
        for batch, part in zip(missing, computed, strict=True):
            run.team.once(partial(run.folder.write_cell, _key(job, batch), part))
    left = iter(computed)
    return [next(left) if part is None else part for part in found]


def _key(job: Job, batch: range) -> str:
    """Of one batch: survivors elsewhere, which another shard knows, do not matter to it."""
    before = None if job.before is None else job.before[batch.start : batch.stop].tolist()
    return digest_of([job.key_on_all, batch.start, batch.stop, before])


def _timed(plan: Plan, gates: Gates, compute: Compute, batch: range) -> Scores:
    """Scores of a batch and the seconds they took."""
    started = time.perf_counter()
    scores = compute(batch, *plan.load(batch)).cpu().numpy()
    return Scores(values=scores, seconds=time.perf_counter() - started, gates=gates)
