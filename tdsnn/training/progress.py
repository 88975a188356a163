"""Where a run stands, how its epoch goes, and who is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tdsnn.schema import Recipe


class Watcher(Protocol):
    """Receives what happens, for progress bars and logs."""

    def step(self, line: dict[str, Any]) -> None: ...
    def epoch(self, line: dict[str, Any]) -> None: ...


class _Unwatched:
    def step(self, line: dict[str, Any]) -> None: ...
    def epoch(self, line: dict[str, Any]) -> None: ...


UNWATCHED: Watcher = _Unwatched()
"""For callers that do not want to know."""


@dataclass
class Position:
    """Where a run stands. ``step`` counts the batches done of the current epoch."""

    epoch: int = 0
    step: int = 0


class Meter:
    """Sums of what an epoch's steps reported, its first step's shares, and the pace since it was (re)started.

    Args:
        stored: what :meth:`stored` gave, to go on from there.
    """

    def __init__(self, stored: Mapping[str, Any] | None = None) -> None:
        kept = stored or {"steps": 0, "sums": {}, "shares": {}}
        self.steps: int = kept["steps"]
        self.sums: dict[str, float] = dict(kept["sums"])
        self.shares: dict[str, float] = dict(kept["shares"])
        self._started, self._before = time.perf_counter(), self.steps

    def add(self, parts: Mapping[str, float]) -> None:
        self.steps += 1
        for key, value in parts.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def stored(self) -> dict[str, Any]:
        return {"steps": self.steps, "sums": self.sums, "shares": self.shares}

    def means(self) -> dict[str, float]:
        return {key: total / self.steps for key, total in self.sums.items()}

    def pace(self) -> float | None:
        """Seconds a step since the start; None before the first one."""
        done = self.steps - self._before
        return (time.perf_counter() - self._started) / done if done else None


def log_line(
    position: Position,
    meter: Meter,
    recipe: Recipe,
    *,
    steps_per_epoch: int,
    lr: float,
    cpu_seconds: float,
) -> dict[str, Any]:
    """What log and watcher are told: where the run stands, the means of the epoch so far, and the pace."""
    line: dict[str, Any] = {"epoch": position.epoch, "step": position.step, **meter.means()}
    if meter.shares:
        line["gradient_shares"] = meter.shares
    line |= {"lr": lr, "cpu_seconds": round(cpu_seconds, 1)}
    pace = meter.pace()
    if pace is not None:
        left = (recipe.epochs - position.epoch) * steps_per_epoch - position.step
        line |= {"images_per_second": recipe.batch_size / pace, "seconds_left": left * pace}
    return line
