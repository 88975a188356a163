"""The cells of one model: gates, then the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._source import ITSELF
from tdsnn.attacks._spec import AttackSpec
from tdsnn.benchmark.batches import Gates, Job, Run, find_job, score
from tdsnn.benchmark.compare import left_standing
from tdsnn.benchmark.gates import Gate, check_attack, check_model
from tdsnn.benchmark.gradients import has_spikes
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.errors import GateError
from tdsnn.evaluation import clean_scores
from tdsnn.kernels.surrogates import AS_TRAINED
from tdsnn.results import Cell
from tdsnn.table import CLEAN

GATE_IMAGES = 64
"""Images on which a model is checked."""
GATE_ATTACK_IMAGES = 8
"""Images on which an attack is checked."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model measured."""

    cells: tuple[Cell, ...]
    gates: Gates
    """What the model, and the attacks on it, passed."""
    refused: str | None = None
    """Why the model has no number at all."""


def measure(run: Run, entry: ModelEntry) -> Measured:
    """The clean cell and all attack cells of one model.

    A cell without a number says why: an attack that a gate refused or that ran out of memory costs its own
    cells, a model that is refused all of its cells. Gates are not run again for cells that are stored.

    Raises:
        IntegrityError: a stored cell is damaged.
    """
    clean = find_job(run, entry)
    try:
        with within_memory():
            gates = _gates(run, clean, partial(_check_model, run.plan, entry))
            found = score(run, clean, gates, partial(_clean, run.plan, entry))
    except GateError as error:
        jobs = [clean, *(find_job(run, entry, spec, strength) for spec, strength in run.plan.attack_order())]
        cells = [_cell(run.plan, job, error=error.message) for job in jobs]
        return Measured(cells=tuple(cells), gates=(), refused=error.message)
    cells = [_cell(run.plan, clean, clean=found, scores=found)]
    passed: dict[AttackSpec, Gates | GateError] = {}
    for spec, strength in run.plan.attack_order():
        before = left_standing(cells, run.scores, spec.norm, strength) if spec.survivors_only else None
        job = find_job(run, entry, spec, strength, before=before)
        cells.append(_under_attack(run, job, found, before, passed))
    return Measured(
        cells=tuple(cells), gates=gates + tuple(g for one in passed.values() for g in _listed(one))
    )


def _listed(gates: Gates | GateError) -> Gates:
    return () if isinstance(gates, GateError) else gates


def _under_attack(
    run: Run,
    job: Job,
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
            found = score(run, job, gates, partial(_attacked, plan, job, start))
    except GateError as error:
        return _cell(plan, job, clean=clean, error=error.message)
    entered = None if before is None else plan.survivors(before)
    return _cell(plan, job, clean=clean, scores=found, entered=entered)


def _says_nothing(spec: AttackSpec, entry: ModelEntry) -> bool:
    """Whether an attack differs from one of the suite's others by its surrogate, on a network without any."""
    settings = spec.settings
    through_another = settings.get("surrogate", AS_TRAINED) != AS_TRAINED
    return through_another and settings.get("source", ITSELF) == ITSELF and not has_spikes(entry.model)


def _checked(run: Run, job: Job) -> Gates | GateError:
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


def _gates(run: Run, job: Job, check: Callable[[], list[Gate]]) -> Gates:
    """What lets a cell pass: as stored with it if it is finished, else measured now."""
    if job.stored is not None and job.done(run.plan.n):
        return job.stored.gates
    run.progress(0, f"{job.label}, gates")
    return tuple(asdict(gate) for gate in run.team.once(check))


def _clean(plan: Plan, entry: ModelEntry, batch: range, x: Tensor, y: Tensor) -> Tensor:
    return clean_scores(entry.model, x, y, task=plan.task)


def _attacked(plan: Plan, job: Job, before: NDArray[Any], batch: range, x: Tensor, y: Tensor) -> Tensor:
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
    job: Job,
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
