"""How our training step grows with time steps, batch and width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.speed._measure import Row, Settings, interleave
from benchmarks.speed._steps import BATCH, TIMESTEPS, TrainingStep, make_batch, make_ours


@dataclass(frozen=True, kw_only=True)
class _Case:
    timesteps: int = TIMESTEPS
    batch: int = BATCH
    width: int = 16

    def __str__(self) -> str:
        return f"T = {self.timesteps}, batch {self.batch}, width {self.width}"


def run(settings: Settings) -> list[Row]:
    """One size is changed at a time; the ratio is the cost relative to T = 4, batch 64, width 16."""
    cases = [
        *(_Case(timesteps=timesteps) for timesteps in (1, 2, 4, 8)),
        *(_Case(batch=batch) for batch in (16, 128)),
        *(_Case(width=width) for width in ((32,) if settings.quick else (32, 64))),
    ]
    timings = interleave({str(case): _step(case) for case in cases}, rounds=settings.rounds)
    return [
        Row(
            name=f"training step, ours, {case}",
            unit="ms",
            ours=1e3 * timings.median(str(case)),
            ratio=timings.ratio(str(case), str(_Case())),
            meaning=f"time relative to {_Case()}",
        )
        for case in cases
    ]


def _step(case: _Case) -> Callable[[], object]:
    model = make_ours(width=case.width, timesteps=case.timesteps)
    return partial(TrainingStep(model, bf16=True), make_batch(case.batch))
