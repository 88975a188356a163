"""Tests that need no further attack: what the measured cells say about gradient masking.

An attack that follows gradients finds little where the gradient misleads, so its survivors are no proof of
robustness. The limits are this project's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from tdsnn.attacks._source import ITSELF
from tdsnn.attacks._spec import AttackSpec
from tdsnn.benchmark.masking._base import GREY_EPS_255, Finding, flat_grey, judged, percent
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
MAX_SCORE_BASED_SHARE = 0.002
"""Share of images that an attack without gradients may fool where those with gradients failed."""

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
        gradient: what attacks follow that have no other network as their source, in words.
    """
    ball = [spec for spec in specs if spec.norm is not None]
    if not ball:
        return None
    names = list(dict.fromkeys(spec.name for spec in ball))
    sources = dict.fromkeys(str(spec.settings.get("source", ITSELF)) for spec in ball)
    followed = [gradient if source == ITSELF else f"the network {source}" for source in sources]
    attacks = "one gradient attack" if len(names) == 1 else "gradient attacks"
    return (
        f"Accuracy under {' and '.join(names)} is only an upper bound on robustness: {attacks} through "
        f"{' and '.join(followed)}, and the checks for masked gradients made here can show masking but not "
        "rule it out."
    )


def signs(findings: Sequence[Finding]) -> list[Sign]:
    """What marks the accuracy of a model under attack: the tests that it failed."""
    return [Sign(check=one.title, message=one.message) for one in findings if one.status == "fail"]


def from_cells(
    cells: Sequence[Cell],
    scores: Mapping[str, NDArray[np.bool_]],
    *,
    clean: NDArray[np.bool_],
    chance: float,
    adversarial: bool = False,
) -> list[Finding]:
    """The tests M4, M6, M8 and M17 in the Linf cells of one model, as far as there are such cells.

    A model that may be no better than chance is tested for nothing: it has nothing that an attack could take
    away.

    Args:
        cells: cells of one model, the union of attacks included.
        scores: cell key to (n,) right or not; a cell without is left out.
        clean: (n,) right without attack.
        chance: share of the images that the best constant answer gets right.
        adversarial: whether it was trained with attacks.
    """
    if wilson(int(clean.sum()), clean.size).low <= chance:
        return []
    ball = [cell for cell in cells if cell.norm == "linf" and cell.key in scores]
    found = [
        _single_step(ball, scores),
        _without_gradients(ball),
        _stronger_attack(ball, scores),
        _flat_grey(ball, scores, chance),
        None if adversarial else _normal_training(ball, scores),
    ]
    return [one for one in found if one is not None]


def _normal_training(ball: Sequence[Cell], verdicts: _Verdicts) -> Finding | None:
    """M17: survivors where networks trained without attacks have none; one step alone may leave some."""
    found = []
    for cells in _by_strength(ball):
        if cells[0].eps_255 >= NORMAL_EPS_255 and any(map(_iterative, cells)):
            cell = min(cells, key=lambda cell: verdicts[cell.key].sum())
            right = verdicts[cell.key]
            # The lower end of the interval: a few images must not raise the alarm by chance.
            found.append(
                judged(
                    "M17",
                    "normal training",
                    figure=wilson(int(right.sum()), right.size).low,
                    limit=MAX_NORMAL_SHARE,
                    unit="share of images, lower end of its interval",
                    message=f"{percent(right.mean())} of the images survive {_place(cell)}, where a network "
                    f"trained without attacks keeps at most {percent(MAX_NORMAL_SHARE)}.",
                )
            )
    return _worst(found)


def _single_step(ball: Sequence[Cell], verdicts: _Verdicts) -> Finding | None:
    """M4: images that one step fools while the iterative attack fails."""
    found = []
    for cells in _by_strength(ball):
        single = [
            cell for cell in cells if not (_iterative(cell) or {"attacks", "queries"} & cell.settings.keys())
        ]
        for one, many in product(single, filter(_iterative, cells)):
            missed = verdicts[many.key] & ~verdicts[one.key]
            found.append(
                judged(
                    "M4",
                    "single step",
                    figure=float(missed.mean()),
                    limit=max(1 / missed.size, MAX_SINGLE_STEP_SHARE),
                    unit="share of images",
                    message=f"{percent(missed.mean())} of the images fall to {one.title} but survive "
                    f"{_place(many)}; at most {percent(MAX_SINGLE_STEP_SHARE)} should.",
                )
            )
    return _worst(found)


def _stronger_attack(ball: Sequence[Cell], verdicts: _Verdicts) -> Finding | None:
    """M8: images that survive a larger radius but not a smaller one."""
    found = []
    for title in dict.fromkeys(cell.title for cell in ball):
        sweep = sorted((cell for cell in ball if cell.title == title), key=lambda cell: cell.eps_255)
        for weak, strong in pairwise(sweep):
            right = verdicts[strong.key]
            rise = (int(right.sum()) - int(verdicts[weak.key].sum())) / right.size
            found.append(
                judged(
                    "M8",
                    "stronger attack",
                    figure=max(rise, 0.0),
                    limit=max(1 / right.size, MAX_RISE_SHARE),
                    unit="share of images",
                    message=f"{percent(max(rise, 0.0))} more of the images survive {_place(strong)} than "
                    f"{weak.eps_255:g}/255; at most {percent(MAX_RISE_SHARE)} should.",
                )
            )
    return _worst(found)


def _flat_grey(ball: Sequence[Cell], verdicts: _Verdicts, chance: float) -> Finding | None:
    """M8: images that survive where any image can become flat grey."""
    found = [
        flat_grey(_place(cell), float(verdicts[cell.key].mean()), chance)
        for cell in ball
        if cell.eps_255 >= GREY_EPS_255 and _iterative(cell)
    ]
    return _worst(found)


def _without_gradients(ball: Sequence[Cell]) -> Finding | None:
    """M6: images that Square fools where every attack before it failed."""
    return _worst(
        [_broken("M6", "without gradients", cell, MAX_SCORE_BASED_SHARE) for cell in _late(ball, "square")]
    )


def _late(ball: Sequence[Cell], attack: str) -> list[Cell]:
    return [cell for cell in ball if cell.attack == attack and cell.entered is not None]


def _broken(test: str, title: str, cell: Cell, limit: float) -> Finding:
    assert cell.entered is not None
    assert cell.survivors is not None
    assert cell.accuracy is not None
    broken = cell.entered - cell.survivors
    return judged(
        test,
        title,
        figure=broken / cell.accuracy.n,
        limit=max(1 / cell.accuracy.n, limit),
        unit="share of images",
        message=f"{_place(cell)} fools {broken} of {cell.entered} images that every attack before it left "
        "standing.",
    )


def _worst(found: Sequence[Finding]) -> Finding | None:
    """The one that is furthest above its limit; of equals the first."""
    return max(found, key=lambda one: (one.figure or 0.0) - (one.limit or 0.0), default=None)


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
