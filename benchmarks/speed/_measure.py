"""Interleaved timing, and the rows that come out of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from tdsnn.errors import TdsnnError

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much to measure."""

    rounds: int
    """Rounds of every interleaved comparison, at least 1; costly parts do fewer."""
    quick: bool = False
    """Smaller amounts of work, for trying things out; the numbers are not for publication."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row should reach: its ratio, or our own figure if it has none."""

    bound: Literal["at least", "at most"]
    value: float

    def reached_by(self, figure: float) -> bool:
        return figure >= self.value if self.bound == "at least" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median of the ratios of single rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, over: Sequence[float], under: Sequence[float]) -> Ratio:
        """Ratios ``over / under``, round by round."""
        ratios = [a / b for a, b in zip(over, under, strict=True)]
        return cls(median=statistics.median(ratios), low=min(ratios), high=max(ratios))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        stock, ours: medians over the rounds, in ``unit``; ``stock`` is the baseline that ``name`` states.
        meaning: what the ratio divides by what.
        peak_share: part of the matrix-product peak that the convolutions reach, 0 to 1, by side.
        details: further figures as JSON values.
    """

    name: str
    unit: str
    ours: float
    stock: float | None = None
    ratio: Ratio | None = None
    meaning: str = ""
    target: Target | None = None
    peak_share: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.target.reached_by(self.ours if self.ratio is None else self.ratio.median)

    def document(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {**asdict(self), "reached": self.reached}


@dataclass(frozen=True)
class Timings:
    """Seconds of each call, by side and round."""

    seconds: Mapping[str, Sequence[Sequence[float]]]

    def rounds(self, side: str, *, quantile: float = 0.5) -> list[float]:
        """One figure for each round: a quantile of its calls, in seconds."""
        return [float(np.quantile(calls, quantile)) for calls in self.seconds[side]]

    def median(self, side: str, *, quantile: float = 0.5) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.rounds(side, quantile=quantile))

    def ratio(self, over: str, under: str, *, quantile: float = 0.5) -> Ratio:
        """Seconds of one side over those of another."""
        return Ratio.of(self.rounds(over, quantile=quantile), self.rounds(under, quantile=quantile))


def interleave(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, calls: int = 1, warmup: int = 1
) -> Timings:
    """Time several sides in turn, so that a change of the machine's mood meets all of them.

    Args:
        sides: what to call, by name; each round goes through them in this order.
        rounds: at least 1.
        calls: timed calls of a side before the next one's turn.
        warmup: untimed calls of each side before the first round.
    """
    for call in sides.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[list[float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, call in sides.items():
            seconds[side].append([_timed(call) for _ in range(calls)])
    return Timings(seconds)


def in_fresh_process(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """The answer of a module-level function in a new interpreter.

    Raises:
        TdsnnError: the process died, e.g. for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenExecutor as error:
            raise TdsnnError(
                f"The process that measures {function.__name__} died.",
                hint="Free some memory, or leave this part out with --only.",
            ) from error


def speedup_row(
    name: str,
    timings: Timings,
    *,
    stock: str,
    ours: str,
    images: int,
    target: Target | None = None,
    peak_share: Mapping[str, float] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Row:
    """A row in images/s; the ratio says how many times faster ours is."""
    return Row(
        name=name,
        unit="images/s",
        stock=images / timings.median(stock),
        ours=images / timings.median(ours),
        ratio=timings.ratio(stock, ours),
        meaning="ours / stock in images/s",
        target=target,
        peak_share=peak_share or {},
        details=details or {},
    )


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
