"""The training step, ours against SpikingJelly's."""

from __future__ import annotations

from functools import partial

from benchmarks.speed._measure import Row, Settings, Target, Timings, interleave, speedup_row
from benchmarks.speed._steps import BATCH, OURS, STOCK_BF16, STOCK_FP32, TIMESTEPS, make_batch, make_step
from benchmarks.speed.roofline import conv_flops, peaks

_TARGETS = {(32, STOCK_BF16): 4.0, (32, STOCK_FP32): 7.5, (16, STOCK_BF16): 3.0}


def run(settings: Settings) -> list[Row]:
    """Whole optimisation steps at width 32 and 16, batch 64, T = 4."""
    return [row for width in (32, 16) for row in _rows(width, settings)]


def _rows(width: int, settings: Settings) -> list[Row]:
    batch = make_batch()
    sides = {side: partial(make_step(side, width=width), batch) for side in (STOCK_FP32, STOCK_BF16, OURS)}
    timings = interleave(sides, rounds=settings.rounds)
    return [_row(width, stock, timings) for stock in (STOCK_FP32, STOCK_BF16)]


def _row(width: int, stock: str, timings: Timings) -> Row:
    flops = BATCH * conv_flops(width=width, timesteps=TIMESTEPS, training=True)
    wanted = _TARGETS.get((width, stock))
    return speedup_row(
        f"training step, width {width}, against {stock}",
        timings,
        stock=stock,
        ours=OURS,
        images=BATCH,
        target=None if wanted is None else Target(bound="at least", value=wanted),
        peak_share={
            "stock": peaks().share(flops, seconds=timings.median(stock), bf16=stock == STOCK_BF16),
            "ours": peaks().share(flops, seconds=timings.median(OURS), bf16=True),
        },
    )
