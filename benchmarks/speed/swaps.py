"""Exchanges of units tried per second, on one thread, beside the rule as it was published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr
from torch import Tensor

from benchmarks.speed._measure import Ratio, Row, Settings, Target, interleave
from tdsnn.errors import MissingError
from tdsnn.kernels._library import library
from tdsnn.kernels.swaps import Swaps, swap_places

_UNITS = (200, 500)
_SIDE_MM = 2.83
"""A neighbourhood of the V1 sheet at 32 pixels."""
_STIMULI, _SOURCES = 640, 8
_SQUARES, _STEPS, _QUICK_STEPS = 32, 500, 100
_RULE, _COMPILED, _EAGER = "published rule", "compiled", "eager"


@dataclass(frozen=True)
class Problem:
    """Squares with responses that stem from a few sources, and the pairs to try."""

    correlation: Tensor
    positions: Tensor
    pairs: Tensor

    @property
    def proximity(self) -> Tensor:
        distances = torch.cdist(self.positions, self.positions, compute_mode="donot_use_mm_for_euclid_dist")
        return 1.0 / (1.0 + distances)


def run(settings: Settings) -> list[Row]:
    """Attempts per second in squares of 200 and of 500 units, and whether both sides keep the same ones."""
    if not library():
        raise MissingError(f"The compiled exchange of units cannot be timed: {library().reason}.")
    steps = _QUICK_STEPS if settings.quick else _STEPS
    with _one_thread():
        return [_row(make_problem(units, steps), settings.rounds) for units in _UNITS]


def make_problem(units: int, steps: int) -> Problem:
    """Random responses, places and pairs, always the same."""
    draws = torch.Generator().manual_seed(0)
    sources = torch.randn(_SOURCES, _STIMULI, generator=draws)
    mixed = torch.randn(_SQUARES, units, _SOURCES, generator=draws) @ sources
    responses = mixed + torch.randn(mixed.shape, generator=draws)
    scores = responses - responses.mean(2, keepdim=True)
    scores /= scores.norm(dim=2, keepdim=True)
    first = torch.randint(units, (_SQUARES, steps), generator=draws)
    step = torch.randint(1, units, (_SQUARES, steps), generator=draws)
    return Problem(
        correlation=scores @ scores.mT,
        positions=torch.rand(_SQUARES, units, 2, generator=draws) * _SIDE_MM,
        pairs=torch.stack([first, (first + step) % units], dim=2),
    )


def published_rule(
    correlation: NDArray[np.float64], positions: NDArray[np.float64], pairs: NDArray[np.int64]
) -> tuple[int, NDArray[np.int64]]:
    """Both rows' distances and Pearson's r anew before and after every exchange, which stays if r is greater.

    Returns:
        How many stay, and the unit at whose first place each unit ends.
    """
    positions, places, accepted = positions.copy(), np.arange(len(positions)), 0
    for pair in pairs:
        rows = correlation[pair].ravel()
        before = 0.5 * (1 - pearsonr(rows, _near(positions, pair))[0])
        positions[pair] = positions[pair[::-1]]
        if 0.5 * (1 - pearsonr(rows, _near(positions, pair))[0]) < before:
            places[pair] = places[pair[::-1]]
            accepted += 1
        else:
            positions[pair] = positions[pair[::-1]]
    return accepted, places


def _near(positions: NDArray[np.float64], pair: NDArray[np.int64]) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = 1 / (cdist(positions[pair], positions) + 1)
    return rows.ravel()


def _row(problem: Problem, rounds: int) -> Row:
    """The published rule works on the first square only: all of them would take a minute a round."""
    squares, steps, _ = problem.pairs.shape
    literal = partial(
        published_rule,
        problem.correlation[0].double().numpy(),
        problem.positions[0].double().numpy(),
        problem.pairs[0].numpy(),
    )
    ours = partial(swap_places, problem.correlation, problem.proximity, problem.pairs)
    timings = interleave(
        {_RULE: literal, _COMPILED: partial(ours, compiled=True), _EAGER: partial(ours, compiled=False)},
        rounds=rounds,
    )
    each = {
        side: [seconds / steps / (1 if side == _RULE else squares) for seconds in timings.rounds(side)]
        for side in timings.seconds
    }
    per_second = {side: 1 / float(np.median(seconds)) for side, seconds in each.items()}
    accepted, places = literal()
    found: Swaps = ours(compiled=True)
    return Row(
        name=f"exchanges tried in squares of {problem.correlation.shape[1]} units, one thread, against the "
        "published rule",
        unit="1/s",
        stock=per_second[_RULE],
        ours=per_second[_COMPILED],
        ratio=Ratio.of(each[_RULE], each[_COMPILED]),
        meaning="ours / published rule, in attempts per second",
        target=Target(bound="at least", value=100.0),
        details={
            "eager_per_s": per_second[_EAGER],
            "kept_by_the_rule": accepted,
            "kept_by_ours": int(found.accepted[0]),
            "units_placed_otherwise": int((found.places[0].numpy() != places).sum()),
        },
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
