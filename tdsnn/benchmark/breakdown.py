"""What an average hides: which classes are left under attack, and how small a radius fools an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.benchmark.compare import left_standing
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.results import Cell


def radii(
    plan: Plan, entries: Sequence[ModelEntry], cells: Sequence[Cell], scores: Mapping[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """For each model and norm, what is left of each class at each radius, and the median smallest radius.

    Counted is the worst case over all attacks of that radius and smaller ones. The smallest radius of an
    image is the first of the tested ones at which something fools it. Its median is over the images that are
    right without attack; None if more than half of them are never fooled. A model with a cell without a
    number is left out.
    """
    labels = plan.split.targets(slice(plan.n))
    count = len(plan.split.classes)
    found = []
    for entry in entries:
        own = [cell for cell in cells if cell.model == entry.name]
        clean = next((scores[cell.key] > plan.task.floor for cell in own if cell.key in scores), None)
        for norm in dict.fromkeys(cell.norm for cell in own if cell.norm is not None):
            tested = [cell for cell in own if cell.norm == norm and cell.eps_255 > 0]
            if not tested or clean is None or any(cell.error is not None for cell in tested):
                continue
            strengths = sorted({cell.eps_255 for cell in tested})
            left = {
                strength: left_standing(own, scores, norm, strength) > plan.task.floor
                for strength in strengths
            }
            found.append(
                {
                    "model": entry.name,
                    "norm": norm,
                    "classes": list(plan.split.classes),
                    "images": _per_class(labels, np.ones(plan.n, dtype=bool), count),
                    "clean_correct": _per_class(labels, clean, count),
                    "survivors": [
                        {"eps_255": strength, "of_class": _per_class(labels, right, count)}
                        for strength, right in left.items()
                    ],
                    "median_smallest_eps_255": _median(clean, left),
                }
            )
    return found


def _per_class(labels: NDArray[np.int64], chosen: NDArray[np.bool_], count: int) -> list[int]:
    return [int(one) for one in np.bincount(labels[chosen], minlength=count)]


def _median(clean: NDArray[np.bool_], left: Mapping[float, NDArray[np.bool_]]) -> float | None:
    """The first radius at which half of the images that are right without attack are fooled."""
    if not clean.any():
        return None
    return next((eps for eps, right in left.items() if 2 * int(right.sum()) <= int(clean.sum())), None)
