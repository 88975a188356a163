"""Which tests for masked gradients a run makes of a model, and on which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from tdsnn.attacks._gradient import inference
from tdsnn.benchmark.batches import Run
from tdsnn.benchmark.compare import left_standing
from tdsnn.benchmark.masking import Finding, masking_report
from tdsnn.benchmark.masking._base import Probe
from tdsnn.benchmark.masking.cells import from_cells
from tdsnn.benchmark.plan import ModelEntry
from tdsnn.benchmark.suites import Masking
from tdsnn.files import digest_of
from tdsnn.results import Cell

_NORM = "linf"


def examine(
    run: Run, entry: ModelEntry, cells: Sequence[Cell], *, beside: Sequence[ModelEntry] = ()
) -> tuple[Finding, ...]:
    """What the cells of a model say, and with a suite that asks for it the whole masking report.

    A finished report is stored beside the cells.

    Args:
        cells: of this model, worst cases included, the one without attack first.
        beside: other entries of the run; what fools them may fool this one.
    """
    plan, clean = run.plan, cells[0]
    if clean.key not in run.scores:
        return ()
    right = {cell.key: run.scores[cell.key] > plan.task.floor for cell in cells if cell.key in run.scores}
    chance = plan.task.chance(plan.split.targets(slice(plan.n)))
    found = from_cells(
        cells, right, clean=right[clean.key], chance=chance, adversarial=entry.adversarially_trained
    )
    radii = sorted({cell.eps_255 for cell in cells if cell.norm == _NORM and cell.eps_255 > 0})
    budget = None if plan.suite is None else plan.suite.suite.masking
    if budget is None or not radii or not right[clean.key].any():
        return tuple(found)
    others = {other.name: other for other in beside if other.name != entry.name}
    known = sorted(other.checkpoint_sha256 for other in others.values())
    key = digest_of([[cell.key for cell in cells], known, structs.asdict(budget)])
    stored = None if run.fresh else run.team.once(partial(run.folder.read_document, key))
    if stored is None:
        probe = _probe(run, entry, cells, right[clean.key], radii, budget, others)
        with inference(entry.model):
            report = masking_report(
                probe,
                found,
                cells,
                team=run.team,
                progress=lambda test: run.progress(0, f"{entry.name}: masking, {test}"),
            )
        stored = [asdict(one) for one in report]
        run.team.once(partial(run.folder.write_document, key, stored))
    return tuple(Finding(**one) for one in stored)


def _probe(
    run: Run,
    entry: ModelEntry,
    cells: Sequence[Cell],
    clean: NDArray[np.bool_],
    radii: Sequence[float],
    budget: Masking,
    others: Mapping[str, ModelEntry],
) -> Probe:
    """The first images that are right, at the radius where the suite leaves nearest to half of them: there a
    weaker attack and a stronger one can be told apart."""
    plan = run.plan
    left = {radius: left_standing(cells, run.scores, _NORM, radius) > plan.task.floor for radius in radii}
    radius = min(radii, key=lambda one: abs(left[one].sum() / clean.sum() - 0.5))
    places = np.flatnonzero(clean)[: budget.images]
    images, labels = plan.split.take(places)
    return Probe(
        model=entry.model,
        x=images.to(plan.device),
        y=labels.to(plan.device),
        indices=places,
        standing=left[radius][places],
        eps=radius / 255,
        seed=plan.seed,
        task=plan.task,
        budget=budget,
        others={name: other.model for name, other in others.items()},
    )
