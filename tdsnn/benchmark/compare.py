"""What is derived from finished cells: the union of attacks, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.files import digest_of
from tdsnn.results import Cell, Comparison, difference_figure
from tdsnn.stats import holm
from tdsnn.table import CLEAN, WORST_CASE

_USUAL_NORM = "linf"


def left_standing(
    cells: Sequence[Cell], scores: Mapping[str, NDArray[Any]], norm: str | None, strength: float
) -> NDArray[Any]:
    """Scores (n,) that the clean cell and all ball attacks among ``cells`` leave of one model: those in
    ``norm`` of that strength or a smaller one, since the smaller ball lies in the larger."""
    members = [cell for cell in cells if cell.attack == CLEAN or _reaches(cell, norm, strength)]
    left: NDArray[Any] = np.minimum.reduce([scores[cell.key] for cell in members if cell.error is None])
    return left


def worst_cases(plan: Plan, cells: Sequence[Cell], scores: MutableMapping[str, NDArray[Any]]) -> list[Cell]:
    """Per-sample worst case over all ball attacks of a model, for each norm and strength that has several.

    Attacks of smaller strength count too: their ball lies in the larger one. The scores of the new cells are
    added to ``scores``. A failed attack leaves an error cell, since the union without it would be too high.
    """
    found = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model and cell.norm is not None]
        for norm, strength in sorted({(cell.norm or "", cell.eps_255) for cell in own}):
            members = [cell for cell in own if _reaches(cell, norm, strength)]
            if sum(cell.eps_255 == strength for cell in members) > 1:
                found.append(_worst_case(plan, members, strength, scores))
    return found


def _reaches(cell: Cell, norm: str | None, strength: float) -> bool:
    """Whether all that the attack of a cell found lies in the ball; in that of radius 0 is only the image."""
    return cell.norm == norm is not None and (cell.eps_255 == strength or 0 < cell.eps_255 < strength)


def _worst_case(
    plan: Plan, members: Sequence[Cell], strength: float, scores: MutableMapping[str, NDArray[Any]]
) -> Cell:
    first = members[0]
    key = digest_of([WORST_CASE, strength, [cell.key for cell in members]])
    failed = list(dict.fromkeys(cell.title for cell in members if cell.error is not None))
    if not failed:
        scores[key] = np.minimum.reduce([scores[cell.key] for cell in members])
    return Cell(
        key=key,
        model=first.model,
        attack=WORST_CASE,
        variant="" if first.norm == _USUAL_NORM else f"norm={first.norm}",
        eps_255=strength,
        norm=first.norm,
        settings={"attacks": list(dict.fromkeys(cell.title for cell in members))},
        accuracy=None if failed else plan.task.figure(scores[key]),
        clean_correct=first.clean_correct,
        survivors=None if failed else plan.survivors(scores[key]),
        error=f"no number from {', '.join(failed)}" if failed else None,
    )


def pairs(entries: Sequence[ModelEntry]) -> list[tuple[str, str]]:
    """(topographic, twin) for each model whose twin is there; else two lone models in their order."""
    names = [entry.name for entry in entries]
    twins = [(entry.name, entry.twin) for entry in entries if entry.twin in names]
    found = [(name, twin) for name, twin in twins if twin is not None]
    return found or ([(names[0], names[1])] if len(names) == 2 else [])


def comparisons(
    plan: Plan, entries: Sequence[ModelEntry], cells: Sequence[Cell], scores: Mapping[str, NDArray[Any]]
) -> tuple[Comparison, ...]:
    """Paired differences of all cells that both models of a pair have; Holm over all of them."""
    found = {(cell.model, cell.place): cell for cell in cells}
    places = list(dict.fromkeys(cell.place for cell in cells))
    rows = []
    for name, twin in pairs(entries):
        for place in places:
            ours, theirs = found[name, place], found[twin, place]
            if ours.error is None and theirs.error is None:
                rows.append((name, twin, place, plan.task.compare(scores[ours.key], scores[theirs.key])))
    adjusted = holm([row[-1].p_value for row in rows])
    return tuple(
        Comparison(
            model=name,
            twin=twin,
            **place._asdict(),
            difference=difference_figure(difference),
            only_model=difference.only_a,
            only_twin=difference.only_b,
            p_mcnemar=difference.p_value,
            p_holm=p_holm,
        )
        for (name, twin, place, difference), p_holm in zip(rows, adjusted, strict=True)
    )
