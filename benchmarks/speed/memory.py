"""Peak memory of a training step, each side in processes of its own."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from benchmarks.speed._measure import Ratio, Row, Settings, Target, in_fresh_process
from benchmarks.speed._steps import BATCH, OURS, STOCK_BF16, STOCK_FP32, make_batch, make_step
from tdsnn.errors import MissingError

_WIDTH = 32
_ROUNDS = 3
_STEPS = 2
_STATUS = Path("/proc/self/status")


def run(settings: Settings) -> list[Row]:
    """What two steps at width 32, batch 64, T = 4, add to the peak of the process, optimiser included."""
    rounds = 1 if settings.quick else min(settings.rounds, _ROUNDS)
    sides = (STOCK_FP32, STOCK_BF16, OURS)
    peaks: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            peaks[side].append(in_fresh_process(peak_bytes, side))
    return [
        Row(
            name=f"peak memory of a training step, width {_WIDTH}, batch {BATCH}, against {stock}",
            unit="MiB",
            stock=statistics.median(peaks[stock]) / 2**20,
            ours=statistics.median(peaks[OURS]) / 2**20,
            ratio=Ratio.of(peaks[OURS], peaks[stock]),
            meaning="ours / stock",
            target=Target(bound="at most", value=0.60),
        )
        for stock in (STOCK_FP32, STOCK_BF16)
    ]


def peak_bytes(side: str) -> int:
    """Growth of this process's peak memory over the first steps of one side, in bytes."""
    step, batch = make_step(side, width=_WIDTH), make_batch()
    before = peak_resident()
    for _ in range(_STEPS):
        step(batch)
    return peak_resident() - before


def peak_resident() -> int:
    """Peak resident memory in bytes. Not ``ru_maxrss``, which begins with the peak of the parent process."""
    try:
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError) as error:
        raise MissingError(
            f"This system does not tell the peak memory of a process ({_STATUS}).",
            hint="Measure memory on Linux, or choose other parts with --only.",
        ) from error
    return 1024 * int(kib)
