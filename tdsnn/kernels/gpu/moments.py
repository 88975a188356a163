"""The operator ``moments`` on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from tdsnn.kernels.gpu import _moment_kernels as kernels
from tdsnn.kernels.gpu._tiles import tiles


def moments(x_MC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C) in fp32 over the rows of ``x_MC`` (M, C), fp32 or bf16."""
    x_MC = x_MC.contiguous()
    rows, channels = x_MC.shape
    tiled = tiles(rows, channels)
    grid = tiled.shared_grid
    partials = x_MC.new_empty((grid[0], 4, channels), dtype=torch.float32)
    mean, variance = partials.new_empty(channels), partials.new_empty(channels)
    merged = tiles(grid[0], channels)
    with torch.cuda.device(x_MC.get_device()):
        kernels.partial_moments[grid](x_MC, partials, rows, channels, **tiled.arguments)
        kernels.merge_moments[(merged.across,)](
            partials, mean, variance, grid[0], rows, channels, **merged.arguments
        )
    return mean, variance
