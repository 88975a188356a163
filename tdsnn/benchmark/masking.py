"""What the measured cells say about gradient masking, and what they cannot say.

An attack that follows gradients finds little where the gradient misleads, so its survivors are no proof of
robustness. Three signs of that need no further attack. Their rules are those of Athalye et al. (2018,
arXiv:1802.00420) and Carlini et al. (2019, arXiv:1902.06705); the limits are this project's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from tdsnn.attacks._spec import AttackSpec
from tdsnn.results import Cell
from tdsnn.stats import wilson

NORMAL_EPS_255 = 8.0
"""Linf radius in units of 1/255 from which on a normally trained network keeps next to nothing."""
MAX_NORMAL_SHARE = 0.01
"""Share of images that such a network may keep there."""
MAX_SINGLE_STEP_SHARE = 0.01
"""Share of images that one step may fool while the iterative attack fails."""
MAX_RISE_SHARE = 0.005
"""Share of images by which a stronger attack may fool fewer."""
GREY_EPS_255 = 128.0
"""Radius from which on every image can become flat grey."""
MAX_OVER_CHANCE = 0.02
"""Share of images above chance that may survive there."""

_Verdicts = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One sign of gradient masking."""

    check: str
    message: str
    """One sentence with what was measured and what was allowed."""


def caveat(specs: Sequence[AttackSpec], gradient: str) -> str | None:
    """How to read the accuracy under the ball attacks among ``specs``; None if there is none.

    Args:
        gradient: what the attacks follow, in words.
    """
    names = list(dict.fromkeys(spec.name for spec in specs if spec.norm is not None))
    if not names:
        return None
    attacks = "one gradient attack" if len(names) == 1 else "gradient attacks"
    return (
        f"Accuracy under {' and '.join(names)} is only an upper bound on robustness: {attacks} through "
        f"{gradient}, and the checks for masked gradients made here can show masking but not rule it out."
    )


def signs(
    cells: Sequence[Cell], scores: Mapping[str, NDArray[np.bool_]], *, clean: NDArray[np.bool_], chance: float
) -> list[Sign]:
    """Signs of masking in the Linf cells of one model, trained without attacks; the first of each check.

    A model that may be no better than chance gives none: it has nothing that an attack could take away.

    Args:
        cells: cells of one model, the union of attacks included.
        scores: cell key to (n,) right or not; a cell without is left out.
        clean: (n,) right without attack.
        chance: share of the images that the best constant answer gets right.
    """
    if wilson(int(clean.sum()), clean.size).low <= chance:
        return []
    ball = [cell for cell in cells if cell.norm == "linf" and cell.key in scores]
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "normal training": lambda: _normal_training(ball, scores),
        "single step": lambda: _single_step(ball, scores),
        "stronger attack": lambda: _stronger_attack(ball, scores),
        "flat grey": lambda: _flat_grey(ball, scores, chance),
    }
    found = [(check, next(run(), None)) for check, run in checks.items()]
    return [Sign(check=check, message=message) for check, message in found if message is not None]


def _normal_training(ball: Sequence[Cell], verdicts: _Verdicts) -> Iterator[str]:
    """Survivors where networks trained without attacks have none; one step alone may leave some."""
    for cells in _by_strength(ball):
        if cells[0].eps_255 >= NORMAL_EPS_255 and any(map(_iterative, cells)):
            cell = min(cells, key=lambda cell: verdicts[cell.key].sum())
            right = verdicts[cell.key]
            # The lower end of the interval: a few images must not raise the alarm by chance.
            if wilson(int(right.sum()), right.size).low > MAX_NORMAL_SHARE:
                yield (
                    f"{_percent(right.mean())} of the images survive {_place(cell)}, where a network trained "
                    f"without attacks keeps at most {_percent(MAX_NORMAL_SHARE)}."
                )


def _single_step(ball: Sequence[Cell], verdicts: _Verdicts) -> Iterator[str]:
    for cells in _by_strength(ball):
        single = [cell for cell in cells if not _iterative(cell) and "attacks" not in cell.settings]
        for one, many in product(single, filter(_iterative, cells)):
            missed = verdicts[many.key] & ~verdicts[one.key]
            if missed.sum() > max(1, MAX_SINGLE_STEP_SHARE * missed.size):
                yield (
                    f"{_percent(missed.mean())} of the images fall to {one.title} but survive "
                    f"{_place(many)}; at most {_percent(MAX_SINGLE_STEP_SHARE)} should."
                )


def _stronger_attack(ball: Sequence[Cell], verdicts: _Verdicts) -> Iterator[str]:
    for title in dict.fromkeys(cell.title for cell in ball):
        sweep = sorted((cell for cell in ball if cell.title == title), key=lambda cell: cell.eps_255)
        for weak, strong in pairwise(sweep):
            right = verdicts[strong.key]
            rise = int(right.sum()) - int(verdicts[weak.key].sum())
            if rise > max(1, MAX_RISE_SHARE * right.size):
                yield (
                    f"{_percent(rise / right.size)} more of the images survive {_place(strong)} than "
                    f"{weak.eps_255:g}/255; at most {_percent(MAX_RISE_SHARE)} should."
                )


def _flat_grey(ball: Sequence[Cell], verdicts: _Verdicts, chance: float) -> Iterator[str]:
    limit = chance + MAX_OVER_CHANCE
    for cell in ball:
        right = verdicts[cell.key]
        if cell.eps_255 >= GREY_EPS_255 and _iterative(cell) and right.mean() > limit:
            yield (
                f"{_percent(right.mean())} of the images survive {_place(cell)}, where any image can become "
                f"flat grey; at most {_percent(limit)} should."
            )


def _by_strength(ball: Sequence[Cell]) -> list[list[Cell]]:
    groups: dict[float, list[Cell]] = defaultdict(list)
    for cell in ball:
        groups[cell.eps_255].append(cell)
    return [groups[eps] for eps in sorted(groups)]


def _iterative(cell: Cell) -> bool:
    return int(cell.settings.get("steps", 1)) > 1


def _place(cell: Cell) -> str:
    name = "all attacks" if "attacks" in cell.settings else cell.title
    return f"{name} at {cell.eps_255:g}/255"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
