"""Kernels of ``moments``: mean and variance of each channel of rows (M, C), by updates that do not cancel.

All numbers are taken relative to the mean of a channel's first rows. Welford (1962,
doi:10.1080/00401706.1962.10490022) within a program, Chan et al. (1983, doi:10.1080/00031305.1983.10483115)
between programs; in one order and without atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tdsnn.kernels.gpu._lif_kernels import tile_of


@triton.jit
def partial_moments(x, partials, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Of each program's rows count, mean, sum of squared deviations, and what the mean is relative to.

    They go to ``partials`` (programs, 4, C).
    """
    at, channel, there = tile_of(0, rows, channels, ROWS, CHANNELS)
    begin = tl.sum(tl.load(x + at, mask=there, other=0.0).to(tl.float32), 0, keep_dims=True)
    begin /= tl.minimum(rows, ROWS)
    count = tl.zeros((ROWS, CHANNELS), tl.float32)
    mean = tl.zeros((ROWS, CHANNELS), tl.float32)
    squares = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        at, channel, there = tile_of(tile, rows, channels, ROWS, CHANNELS)
        value = tl.load(x + at, mask=there, other=0.0).to(tl.float32) - begin
        count += there.to(tl.float32)
        delta = tl.where(there, value - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        squares += tl.where(there, delta * (value - mean), 0.0)
    total = tl.sum(count, 0, keep_dims=True)
    whole = tl.sum(count * mean, 0, keep_dims=True) / tl.maximum(total, 1.0)
    apart = mean - whole
    out, there = partials + tl.program_id(0) * 4 * channels + channel, channel < channels
    tl.store(out, total, mask=there)
    tl.store(out + channels, whole, mask=there)
    tl.store(out + 2 * channels, tl.sum(squares + count * apart * apart, 0, keep_dims=True), mask=there)
    tl.store(out + 3 * channels, begin, mask=there)


@triton.jit
def merge_moments(
    partials, mean, variance, programs, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Mean and biased variance (C) of all rows."""
    channel = (tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    there = channel < channels
    weighted = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, programs, ROWS):
        program = first + tl.arange(0, ROWS)[:, None]
        at, inside = partials + program * 4 * channels + channel, (program < programs) & there
        count = tl.load(at, mask=inside, other=0.0)
        weighted += count * tl.load(at + channels, mask=inside, other=0.0)
    whole = tl.sum(weighted, 0, keep_dims=True) / rows
    squares = tl.zeros((ROWS, CHANNELS), tl.float32)
    for first in range(0, programs, ROWS):
        program = first + tl.arange(0, ROWS)[:, None]
        at, inside = partials + program * 4 * channels + channel, (program < programs) & there
        count = tl.load(at, mask=inside, other=0.0)
        apart = tl.load(at + channels, mask=inside, other=0.0) - whole
        squares += count * apart * apart + tl.load(at + 2 * channels, mask=inside, other=0.0)
    begin = tl.load(partials + 3 * channels + channel, mask=there, other=0.0)
    tl.store(mean + channel, begin + whole, mask=there)
    tl.store(variance + channel, tl.sum(squares, 0, keep_dims=True) / rows, mask=there)
