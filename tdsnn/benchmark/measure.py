"""The cells of one model: gates, then batch after batch, going on from what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._source import ITSELF
from tdsnn.attacks._spec import AttackSpec
from tdsnn.benchmark.compare import left_standing
from tdsnn.benchmark.gates import Gate, check_attack, check_model
from tdsnn.benchmark.gradients import has_spikes
from tdsnn.benchmark.plan import ModelEntry, Plan, cell_key
from tdsnn.errors import GateError
from tdsnn.evaluation import clean_scores
from tdsnn.kernels.surrogates import AS_TRAINED
from tdsnn.processes import ALONE, Team
from tdsnn.result_folder import ResultFolder, Scores
from tdsnn.results import Cell
from tdsnn.table import CLEAN, titled

GATE_IMAGES = 64
"""Images on which a model is checked."""
GATE_ATTACK_IMAGES = 8
"""Images on which an attack is checked."""

Progress = Callable[[int, str], None]
"""Called with the number of images just finished and what is running."""
Gates = tuple[Mapping[str, Any], ...]


@dataclass
class Run:
    """What a run has so far; the tables are by cell key."""

    plan: Plan
    folder: ResultFolder
    fresh: bool
    progress: Progress
    team: Team = ALONE
    """The processes that share the batches; the folder is the first one's."""
    scores: dict[str, NDArray[Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model measured."""

    cells: tuple[Cell, ...]
    gates: Gates
    """What the model, and the attacks on it, passed."""
    refused: str | None = None
    """Why the model has no number at all."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One cell that is wanted, and what is stored of it."""

    entry: ModelEntry
    spec: AttackSpec | None
    strength: float
    key: str
    stored: Scores | None

    @property
    def label(self) -> str:
        if self.spec is None:
            return f"{self.entry.name}: clean"
        return f"{self.entry.name}: {titled(self.spec.name, self.spec.variant)} {self.strength:g}"

    def done(self, n: int) -> bool:
        return self.stored is not None and self.stored.values.size == n


def measure(run: Run, entry: ModelEntry) -> Measured:
    """The clean cell and all attack cells of one model.

    A cell without a number says why: an attack that a gate refused or that ran out of memory costs its own
    cells, a model that is refused all of its cells. Gates are not run again for cells that are stored.

    Raises:
        IntegrityError: a stored cell is damaged.
    """
    clean = _job(run, entry)
    try:
        with within_memory():
            gates = _gates(run, clean, partial(_check_model, run.plan, entry))
            found = _scores(run, clean, gates, partial(_clean, run.plan, entry))
    except GateError as error:
        jobs = [clean, *(_job(run, entry, spec, strength) for spec, strength in run.plan.attack_order())]
        cells = [_cell(run.plan, job, error=error.message) for job in jobs]
        return Measured(cells=tuple(cells), gates=(), refused=error.message)
    cells = [_cell(run.plan, clean, clean=found, scores=found)]
    passed: dict[AttackSpec, Gates | GateError] = {}
    for spec, strength in run.plan.attack_order():
        before = left_standing(cells, run.scores, spec.norm, strength) if spec.survivors_only else None
        job = _job(run, entry, spec, strength, before=before)
        cells.append(_under_attack(run, job, found, before, passed))
    return Measured(
        cells=tuple(cells), gates=gates + tuple(g for one in passed.values() for g in _listed(one))
    )


def _listed(gates: Gates | GateError) -> Gates:
    return () if isinstance(gates, GateError) else gates


def _under_attack(
    run: Run,
    job: _Job,
    clean: NDArray[Any],
    before: NDArray[Any] | None,
    passed: dict[AttackSpec, Gates | GateError],
) -> Cell:
    """The cell of one attack and strength; ``passed`` has, and gets, what the gates said about the attack."""
    plan, spec = run.plan, job.spec
    assert spec is not None
    if before is not None and _says_nothing(spec, job.entry):
        run.scores[job.key], run.seconds[job.key] = before, 0.0
        return _cell(plan, job, clean=clean, scores=before, entered=0)
    start = clean if before is None else before
    try:
        with within_memory():
            if spec not in passed:
                passed[spec] = _checked(run, job)
            gates = passed[spec]
            if isinstance(gates, GateError):
                raise gates
            found = _scores(run, job, gates, partial(_attacked, plan, job, start))
    except GateError as error:
        return _cell(plan, job, clean=clean, error=error.message)
    entered = None if before is None else plan.survivors(before)
    return _cell(plan, job, clean=clean, scores=found, entered=entered)


def _says_nothing(spec: AttackSpec, entry: ModelEntry) -> bool:
    """Whether an attack differs from one of the suite's others by its surrogate, on a network without any."""
    settings = spec.settings
    through_another = settings.get("surrogate", AS_TRAINED) != AS_TRAINED
    return through_another and settings.get("source", ITSELF) == ITSELF and not has_spikes(entry.model)


def _checked(run: Run, job: _Job) -> Gates | GateError:
    assert job.spec is not None
    try:
        with within_memory():
            return _gates(run, job, partial(_check_attack, run.plan, job.entry, job.spec))
    except GateError as error:
        return error


@contextmanager
def within_memory() -> Iterator[None]:
    """What runs out of memory inside the block is refused, and says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GateError("out of memory: lower --batch-size") from error


def _job(
    run: Run,
    entry: ModelEntry,
    spec: AttackSpec | None = None,
    strength: float = 0.0,
    *,
    before: NDArray[Any] | None = None,
) -> _Job:
    plan, key = run.plan, cell_key(run.plan, entry, spec, strength, before=before)
    read = partial(run.folder.read_cell, key, plan.n, batch_size=plan.batch_size)
    stored = None if run.fresh else run.team.once(read)
    return _Job(entry=entry, spec=spec, strength=strength, key=key, stored=stored)


def _gates(run: Run, job: _Job, check: Callable[[], list[Gate]]) -> Gates:
    """What lets a cell pass: as stored with it if it is finished, else measured now."""
    if job.stored is not None and job.done(run.plan.n):
        return job.stored.gates
    run.progress(0, f"{job.label}, gates")
    return tuple(asdict(gate) for gate in run.team.once(check))


def _scores(
    run: Run, job: _Job, gates: Gates, compute: Callable[[range, Tensor, Tensor], Tensor]
) -> NDArray[Any]:
    """Scores (n,) of a cell; finished batches, one of each process, are stored before the next begin."""
    found = job.stored
    if job.done(run.plan.n):
        run.reused.append(job.key)
    elif found is not None:
        run.resumed.append(job.key)
    run.progress(0 if found is None else found.values.size, job.label)
    left = [batch for batch in run.plan.batches() if found is None or batch.stop > found.values.size]
    for start in range(0, len(left), run.team.size):
        batches = left[start : start + run.team.size]
        parts = run.team.shared(batches, partial(_timed, run.plan, compute))
        if found is not None:
            parts = [(found.values, found.seconds), *parts]
        values, seconds = zip(*parts, strict=True)
        found = Scores(values=np.concatenate(values), seconds=round(sum(seconds), 3), gates=gates)
        run.team.once(partial(run.folder.write_cell, job.key, found))
        run.progress(sum(map(len, batches)), job.label)
    assert found is not None
    run.scores[job.key], run.seconds[job.key] = found.values, found.seconds
    return found.values


def _timed(
    plan: Plan, compute: Callable[[range, Tensor, Tensor], Tensor], batch: range
) -> tuple[NDArray[Any], float]:
    """Scores of a batch and the seconds they took."""
    started = time.perf_counter()
    scores = compute(batch, *plan.load(batch)).cpu().numpy()
    return scores, time.perf_counter() - started


def _clean(plan: Plan, entry: ModelEntry, batch: range, x: Tensor, y: Tensor) -> Tensor:
    return clean_scores(entry.model, x, y, task=plan.task)


def _attacked(plan: Plan, job: _Job, before: NDArray[Any], batch: range, x: Tensor, y: Tensor) -> Tensor:
    assert job.spec is not None
    return job.spec.attack.perturb(
        job.entry.model,
        x,
        y,
        eps=job.spec.eps(job.strength),
        indices=batch,
        seed=plan.seed,
        norm=job.spec.norm,
        task=plan.task,
        clean=torch.from_numpy(before[batch.start : batch.stop]),
    ).robust


def _check_model(plan: Plan, entry: ModelEntry) -> list[Gate]:
    x, _ = plan.load(range(min(GATE_IMAGES, len(plan.split.labels))))
    return check_model(entry.model, x, num_classes=len(plan.split.classes))


def _check_attack(plan: Plan, entry: ModelEntry, spec: AttackSpec) -> list[Gate]:
    indices = range(min(GATE_ATTACK_IMAGES, len(plan.split.labels)))
    return check_attack(
        spec.attack,
        entry.model,
        *plan.load(indices),
        eps=spec.eps(spec.strengths[-1]),
        indices=indices,
        seed=plan.seed,
        norm=spec.norm,
        task=plan.task,
    )


def _cell(
    plan: Plan,
    job: _Job,
    *,
    clean: NDArray[Any] | None = None,
    scores: NDArray[Any] | None = None,
    entered: int | None = None,
    error: str | None = None,
) -> Cell:
    spec = job.spec
    return Cell(
        key=job.key,
        model=job.entry.name,
        attack=CLEAN if spec is None else spec.name,
        variant="" if spec is None else spec.variant,
        eps_255=job.strength,
        norm=None if spec is None else spec.norm,
        settings={} if spec is None else spec.settings,
        accuracy=None if scores is None else plan.task.figure(scores),
        clean_correct=None if clean is None else plan.survivors(clean),
        survivors=None if scores is None else plan.survivors(scores),
        entered=entered,
        unit="sigma" if spec is None else spec.attack.strength_word,
        error=error,
    )
