"""What the machine can do, and the work of a network, counted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed._measure import Row, Settings, interleave
from benchmarks.speed._steps import SIZE
from benchmarks.speed._stock import Stock

_SIDE = 4096
_COPY_BYTES = 1 << 28
"""256 MiB, far above any cache."""
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Best of a few rounds, in the units of their names."""

    fp32_flops_per_s: float
    bf16_flops_per_s: float
    copy_bytes_per_s: float
    """Bytes read plus bytes written."""

    def share(self, flops: float, *, seconds: float, bf16: bool) -> float:
        """Part of the matrix-product peak, 0 to 1."""
        return flops / seconds / (self.bf16_flops_per_s if bf16 else self.fp32_flops_per_s)


def run(settings: Settings) -> list[Row]:
    """Peaks of a 4096x4096x4096 matrix product and of a copy."""
    found = peaks()
    return [
        Row(name="matrix product 4096^3, fp32", unit="TFLOP/s", ours=found.fp32_flops_per_s / 1e12),
        Row(name="matrix product 4096^3, bf16", unit="TFLOP/s", ours=found.bf16_flops_per_s / 1e12),
        Row(name="copy of 256 MiB, read and write", unit="GB/s", ours=found.copy_bytes_per_s / 1e9),
    ]


@cache
def peaks() -> Peaks:
    """Measured once in a run, by whichever part asks first."""
    fp32 = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    bf16, out32, out16 = fp32.bfloat16(), torch.empty_like(fp32), fp32.bfloat16()
    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8)
    target = torch.zeros_like(source)
    timings = interleave(
        {
            "fp32": lambda: torch.mm(fp32, fp32, out=out32),
            "bf16": lambda: torch.mm(bf16, bf16, out=out16),
            "copy": lambda: target.copy_(source),
        },
        rounds=_ROUNDS,
    )
    return Peaks(
        fp32_flops_per_s=2 * _SIDE**3 / min(timings.rounds("fp32")),
        bf16_flops_per_s=2 * _SIDE**3 / min(timings.rounds("bf16")),
        copy_bytes_per_s=2 * _COPY_BYTES / min(timings.rounds("copy")),
    )


@cache
def conv_flops(*, width: int, timesteps: int, training: bool) -> int:
    """Useful floating-point operations of the convolutions for one image of 3x32x32.

    A multiplication and an addition count as two. The stem counts once, since the image is constant, whatever
    a side really does. Training is three forward passes (forward, input and weight gradient) without the
    stem's input gradient.
    """
    image = torch.zeros(1, 3, SIZE, SIZE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Stock(width=width, timesteps=1)(image)
    counts = counter.get_flop_counts()
    total: int = counts["Global"][torch.ops.aten.convolution]
    stem: int = counts["Stock.net.conv1"][torch.ops.aten.convolution]
    forward = stem + timesteps * (total - stem)
    return 3 * forward - stem if training else forward
