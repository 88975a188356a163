"""What is derived from finished cells: the union of attacks, and paired differences."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from tdsnn.bench.plan import Subject
from tdsnn.results import Cell, Comparison, accuracy_figure, difference_figure, digest_of
from tdsnn.stats import holm, paired_difference

WORST_CASE = "worst case"


def worst_cases(cells: Sequence[Cell], verdicts: MutableMapping[str, NDArray[np.bool_]]) -> list[Cell]:
    """Per-sample worst case over all ball attacks of the same model, norm and strength, if there are several.

    The verdicts of the new cells are added to ``verdicts``. A failed attack leaves an error cell, since the
    union without it would be too high.
    """

    def group(cell: Cell) -> tuple[str, str, float]:
        return cell.model, cell.norm or "", cell.eps_255

    found = []
    ball = [cell for cell in cells if cell.norm is not None]
    # Models keep their order; sorting by strength within a model only changes the order of its rows.
    models = list(dict.fromkeys(cell.model for cell in ball))
    for _, grouped in groupby(sorted(ball, key=lambda c: (models.index(c.model), *group(c)[1:])), group):
        members = list(grouped)
        if len(members) < 2:
            continue
        key = digest_of([WORST_CASE, [cell.key for cell in members]])
        failed = [cell.attack for cell in members if cell.error is not None]
        survivors = None
        if not failed:
            verdicts[key] = np.logical_and.reduce([verdicts[cell.key] for cell in members])
            survivors = int(verdicts[key].sum())
        found.append(
            Cell(
                key=key,
                model=members[0].model,
                attack=WORST_CASE,
                eps_255=members[0].eps_255,
                norm=members[0].norm,
                settings={"attacks": [cell.attack for cell in members]},
                accuracy=None if survivors is None else accuracy_figure(survivors, verdicts[key].size),
                clean_correct=members[0].clean_correct,
                survivors=survivors,
                error=f"no number from {', '.join(failed)}" if failed else None,
            )
        )
    return found


def pairs(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """(topographic, twin) for each model whose twin is there; else two lone models in their order."""
    names = [subject.name for subject in subjects]
    twins = [(subject.name, subject.twin) for subject in subjects if subject.twin in names]
    found = [(name, twin) for name, twin in twins if twin is not None]
    return found or ([(names[0], names[1])] if len(names) == 2 else [])


def comparisons(
    subjects: Sequence[Subject], cells: Sequence[Cell], verdicts: MutableMapping[str, NDArray[np.bool_]]
) -> tuple[Comparison, ...]:
    """Paired differences of all cells that both models of a pair have; Holm over all of them."""
    by_place = {(cell.model, cell.attack, cell.eps_255): cell for cell in cells}
    places = list(dict.fromkeys((cell.attack, cell.eps_255) for cell in cells))
    rows = []
    for name, twin in pairs(subjects):
        for attack, eps_255 in places:
            ours, theirs = by_place[name, attack, eps_255], by_place[twin, attack, eps_255]
            if ours.error is None and theirs.error is None:
                difference = paired_difference(verdicts[ours.key], verdicts[theirs.key])
                rows.append((name, twin, attack, eps_255, difference))
    adjusted = holm([row[-1].p_value for row in rows])
    return tuple(
        Comparison(
            model=name,
            twin=twin,
            attack=attack,
            eps_255=eps_255,
            difference=difference_figure(difference),
            only_model=difference.only_a,
            only_twin=difference.only_b,
            p_mcnemar=difference.p_value,
            p_holm=p_holm,
        )
        for (name, twin, attack, eps_255, difference), p_holm in zip(rows, adjusted, strict=True)
    )
