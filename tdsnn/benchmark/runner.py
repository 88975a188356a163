"""One benchmark run: every model, without attack and under every attack and strength, with resume."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tdsnn.benchmark.batches import Progress, Run
from tdsnn.benchmark.breakdown import radii
from tdsnn.benchmark.compare import comparisons, worst_cases
from tdsnn.benchmark.examine import examine
from tdsnn.benchmark.gradients import gradient_of
from tdsnn.benchmark.masking import caveat, signs
from tdsnn.benchmark.measure import Measured, measure
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.shards import Shard
from tdsnn.benchmark.temporal import measure_share, measure_time
from tdsnn.processes import ALONE, Team
from tdsnn.result_folder import ResultFolder
from tdsnn.results import Cell, Result
from tdsnn.runtime import deterministic, environment


def run_bench(
    plan: Plan,
    entries: Sequence[ModelEntry],
    folder: ResultFolder,
    *,
    fresh: bool = False,
    progress: Progress = lambda images, label: None,
    team: Team = ALONE,
) -> Result:
    """Measure all cells, compare paired models, and write the result into ``folder``.

    Batches that the folder has already are taken from it unless ``fresh``. What a gate refuses or what runs
    out of memory becomes error cells, of the attack or of the model concerned; everything else goes on.

    Args:
        progress: told about every finished batch; the total is :func:`total_images`.
        team: the processes that share the images; each of them calls this, and gets the result.

    Raises:
        IntegrityError: a stored cell is damaged.
    """
    started = time.perf_counter()
    run = Run(plan=plan, folder=folder, fresh=fresh, progress=progress, team=team)
    with deterministic():
        measured = [measure(run, entry) for entry in entries]
        cells = [cell for one in measured for cell in one.cells]
        cells += worst_cases(plan, cells, run.scores)
        models = tuple(
            _describe(run, entry, one, cells, entries) for entry, one in zip(entries, measured, strict=True)
        )
        refused = {entry.name: one.refused for entry, one in zip(entries, measured, strict=True)}
        in_time = measure_time(run, entries, refused=refused)
    result = Result(
        settings=plan.settings(),
        models=models,
        cells=tuple(cells),
        radii=tuple(radii(plan, entries, cells, run.scores)),
        comparisons=comparisons(plan, entries, cells, run.scores),
        measurements=tuple(in_time.measurements),
        shifts=tuple(in_time.shifts),
        provenance={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(time.perf_counter() - started, 3),
            "cell_wall_s": run.seconds,
            "reused_cells": run.reused,
            "resumed_cells": run.resumed,
            "sources": {entry.name: entry.source for entry in entries},
            "environment": environment(plan.device),
            "processes": team.size,
            **({"timings": in_time.timings} if in_time.timings else {}),
        },
    )
    team.once(partial(folder.write_result, result, run.scores, in_time.samples, plan.split.places))
    return result


def run_shard(
    plan: Plan,
    entries: Sequence[ModelEntry],
    folder: ResultFolder,
    *,
    shard: Shard,
    fresh: bool = False,
    progress: Progress = lambda images, label: None,
    team: Team = ALONE,
) -> list[str]:
    """Leave in ``folder`` what one shard has to compute, for the :func:`run_bench` that gives the result.

    Its batches of all cells, and its part of the time metrics. Tests for masked gradients look at the scores
    of all images, so they are left to that run.

    Args:
        progress: as of :func:`run_bench`; the total is :func:`total_images` with the shard.

    Returns:
        Which cells and metrics have no number, and why.

    Raises:
        IntegrityError: a stored cell is damaged.
    """
    run = Run(plan=plan, folder=folder, fresh=fresh, progress=progress, team=team, shard=shard)
    with deterministic():
        measured = {entry.name: measure(run, entry) for entry in entries}
        refused = {name: one.refused for name, one in measured.items()}
        failed = [
            f"{cell.model} under {cell.title} {cell.eps_255:g}: {cell.error}"
            for one in measured.values()
            for cell in one.cells
            if cell.error is not None
        ]
        return failed + measure_share(run, entries, shard, refused=refused)


def total_images(plan: Plan, entries: Sequence[ModelEntry], shard: Shard | None = None) -> int:
    """How many images all cells together judge, and those that time metrics are measured on."""
    cells = len(entries) * (1 + sum(len(spec.strengths) for spec in plan.attacks))
    batches, metrics = plan.batches(), range(len(entries) * len(plan.metrics))
    if shard is None:
        return cells * plan.n + len(metrics) * plan.n
    return cells * sum(map(len, shard.of(batches))) + len(shard.of(metrics)) * plan.n


def _describe(
    run: Run,
    entry: ModelEntry,
    measured: Measured,
    cells: Sequence[Cell],
    entries: Sequence[ModelEntry],
) -> Mapping[str, Any]:
    model, gradient = entry.model, gradient_of(entry.model)
    findings = examine(run, entry, [cell for cell in cells if cell.model == entry.name], beside=entries)
    return {
        "name": entry.name,
        "architecture": model.architecture,
        "arguments": model.arguments,
        "timesteps": model.timesteps,
        "checkpoint_sha256": entry.checkpoint_sha256,
        "twin": entry.twin,
        "alone": entry.alone,
        "adversarially_trained": entry.adversarially_trained,
        "attack_surrogate": gradient.surrogate,
        "compiled": any(layer.compiled for layer in model.neurons),
        "gates": list(measured.gates),
        "refused": measured.refused,
        "caveat": caveat(run.plan.attacks, gradient.words),
        "masking": [asdict(finding) for finding in findings],
        "masking_signs": [asdict(sign) for sign in signs(findings)],
    }
