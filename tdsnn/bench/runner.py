"""The cell loop: every model, without attack and under every attack and strength, with resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tdsnn.attacks._gradient import inference, predict
from tdsnn.bench.compare import comparisons, worst_cases
from tdsnn.bench.gates import Gate, check_attack, check_model
from tdsnn.bench.masking import caveat, signs
from tdsnn.bench.plan import Plan, Strike, Subject, cell_key
from tdsnn.errors import GateError
from tdsnn.results import Cell, Result, ResultFolder, Verdicts, accuracy_figure
from tdsnn.runtime import deterministic, environment

GATE_IMAGES = 64
"""Images on which a model is checked."""
GATE_ATTACK_IMAGES = 8
"""Images on which an attack is checked."""

Progress = Callable[[int, str], None]
"""Called with the number of images just finished and what is running."""


@dataclass
class _Run:
    """What a run has so far."""

    plan: Plan
    folder: ResultFolder
    fresh: bool
    progress: Progress
    verdicts: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)


def run_bench(
    plan: Plan,
    subjects: Sequence[Subject],
    folder: ResultFolder,
    *,
    fresh: bool = False,
    progress: Progress = lambda images, label: None,
) -> Result:
    """Measure all cells, compare paired models, and write the result into ``folder``.

    Cells that the folder has already are taken from it unless ``fresh``. A cell whose attack was refused by
    a gate or ran out of memory is an error cell; the others go on.

    Args:
        progress: told about every finished batch; the total is :func:`total_images`.

    Raises:
        GateError: a model failed a gate, so that none of its numbers may be given.
        IntegrityError: a stored cell is damaged.
    """
    started = time.perf_counter()
    run = _Run(plan=plan, folder=folder, fresh=fresh, progress=progress)
    cells: list[Cell] = []
    gates: dict[str, list[Gate]] = {}
    with deterministic():
        for subject in subjects:
            gates[subject.name] = _check(run, subject)
            cells += _measure(run, subject)
    cells += worst_cases(cells, run.verdicts)
    result = Result(
        settings=plan.settings(),
        models=tuple(_describe(run, subject, gates[subject.name], cells) for subject in subjects),
        cells=tuple(cells),
        comparisons=comparisons(subjects, cells, run.verdicts),
        provenance={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(time.perf_counter() - started, 3),
            "cell_wall_s": run.seconds,
            "reused_cells": run.reused,
            "sources": {subject.name: subject.source for subject in subjects},
            "environment": environment(plan.device),
        },
    )
    folder.write_result(result, run.verdicts)
    return result


def total_images(plan: Plan, subjects: Sequence[Subject]) -> int:
    """How many images all cells together judge."""
    return len(subjects) * (1 + len(plan.strikes)) * plan.n


def _check(run: _Run, subject: Subject) -> list[Gate]:
    plan = run.plan
    run.progress(0, f"{subject.name}: gates")
    indices = range(min(GATE_IMAGES, len(plan.split.labels)))
    x, y = plan.load(indices)
    gates = check_model(subject.model, x, num_classes=len(plan.split.classes))
    strongest = {strike.attack.name: strike for strike in sorted(plan.strikes, key=lambda s: s.eps_255)}
    few = slice(0, GATE_ATTACK_IMAGES)
    for strike in strongest.values():
        gates += check_attack(
            strike.attack, subject.model, x[few], y[few], eps=strike.eps, indices=indices[few], seed=plan.seed
        )
    return gates


def _describe(run: _Run, subject: Subject, gates: Sequence[Gate], cells: Sequence[Cell]) -> Mapping[str, Any]:
    model = subject.model
    neurons = {layer.config for layer in model.neurons}
    shapes = sorted({f"{neuron.surrogate}, alpha {neuron.surrogate_alpha:g}" for neuron in neurons})
    # Attacks differentiate through what the model was trained with; None: an exact gradient.
    surrogate = "; ".join(shapes) or None
    own = [cell for cell in cells if cell.model == subject.name]
    return {
        "name": subject.name,
        "architecture": model.architecture,
        "arguments": model.arguments,
        "timesteps": model.timesteps,
        "checkpoint_sha256": subject.checkpoint_sha256,
        "twin": subject.twin,
        "attack_surrogate": surrogate,
        "compiled": any(layer.compiled for layer in model.neurons),
        "gates": [asdict(gate) for gate in gates],
        "caveat": caveat(run.plan.strikes, surrogate),
        "masking_signs": [
            asdict(sign) for sign in signs(own, run.verdicts, num_classes=len(run.plan.split.classes))
        ],
    }


def _measure(run: _Run, subject: Subject) -> list[Cell]:
    """The clean cell and all attack cells of one model."""
    clean_key = cell_key(run.plan, subject, None)
    clean = _cached_or(run, clean_key, f"{subject.name}: clean", partial(_clean, run, subject))
    cells = [_cell(subject, None, clean_key, clean=clean, right=clean)]
    for strike in run.plan.strikes:
        key = cell_key(run.plan, subject, strike)
        label = f"{subject.name}: {strike.attack.name} {strike.eps_255:g}"
        try:
            right = _cached_or(run, key, label, partial(_attacked, run, subject, strike, clean))
        except GateError as error:
            cells.append(_cell(subject, strike, key, clean=clean, error=error.message))
        except torch.OutOfMemoryError:
            reason = "out of memory: lower --batch-size"
            cells.append(_cell(subject, strike, key, clean=clean, error=reason))
        else:
            cells.append(_cell(subject, strike, key, clean=clean, right=right))
    return cells


def _cached_or(
    run: _Run, key: str, label: str, compute: Callable[[], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    run.progress(0, label)
    stored = None if run.fresh else run.folder.read_cell(key, run.plan.n)
    if stored is None:
        started = time.perf_counter()
        right = compute()
        stored = Verdicts(right=right, seconds=round(time.perf_counter() - started, 3))
        run.folder.write_cell(key, stored)
    else:
        run.reused.append(key)
        run.progress(run.plan.n, label)
    run.verdicts[key] = stored.right
    run.seconds[key] = stored.seconds
    return stored.right


def _clean(run: _Run, subject: Subject) -> NDArray[np.bool_]:
    right = np.zeros(run.plan.n, dtype=bool)
    with inference(subject.model):
        for batch in run.plan.batches():
            x, y = run.plan.load(batch)
            right[batch.start : batch.stop] = (predict(subject.model, x) == y).cpu().numpy()
            run.progress(len(batch), f"{subject.name}: clean")
    return right


def _attacked(run: _Run, subject: Subject, strike: Strike, clean: NDArray[np.bool_]) -> NDArray[np.bool_]:
    right = np.zeros(run.plan.n, dtype=bool)
    for batch in run.plan.batches():
        x, y = run.plan.load(batch)
        known = torch.from_numpy(clean[batch.start : batch.stop])
        outcome = strike.attack.perturb(
            subject.model, x, y, eps=strike.eps, indices=batch, seed=run.plan.seed, clean_correct=known
        )
        right[batch.start : batch.stop] = outcome.robust.cpu().numpy()
        run.progress(len(batch), f"{subject.name}: {strike.attack.name} {strike.eps_255:g}")
    return right


def _cell(
    subject: Subject,
    strike: Strike | None,
    key: str,
    *,
    clean: NDArray[np.bool_],
    right: NDArray[np.bool_] | None = None,
    error: str | None = None,
) -> Cell:
    return Cell(
        key=key,
        model=subject.name,
        attack="clean" if strike is None else strike.attack.name,
        eps_255=0.0 if strike is None else strike.eps_255,
        norm=None if strike is None else strike.norm,
        settings={} if strike is None else strike.attack.settings,
        accuracy=None if right is None else accuracy_figure(int(right.sum()), right.size),
        clean_correct=int(clean.sum()),
        survivors=None if right is None else int(right.sum()),
        error=error,
    )
