"""How the kernels share tensors (M, C) out."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton

WIDTH = 64
"""Most channels of a tile: 128 bytes in bf16, a whole line of the cache."""
HELD = 2048
"""Most potentials, over all steps, that a program keeps in the registers of its 128 threads."""
PROGRAMS = 1024
"""Most programs that share a sum out. The same for all GPUs, so that all add up in one order."""
_FEWEST_STEPS = 4
"""Fewer steps make no larger tile."""

LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}
"""Without fusion every product is rounded before it is added, as in PyTorch's own operations."""


class Tiles(NamedTuple):
    """Tiles of ``rows`` x ``channels`` numbers, and how many there are of them."""

    rows: int
    channels: int
    down: int
    across: int

    @property
    def grid(self) -> tuple[int, int]:
        """One program for each tile."""
        return self.down, self.across

    @property
    def shared_grid(self) -> tuple[int, int]:
        """Programs that share the rows out, for sums."""
        return min(self.down, max(1, PROGRAMS // self.across)), self.across

    @property
    def arguments(self) -> dict[str, Any]:
        """For a kernel."""
        return {"ROWS": self.rows, "CHANNELS": self.channels, **LAUNCH}


def tiles(rows: int, channels: int, *, steps: int = 1) -> Tiles:
    """Of tensors (T, M, C) with M ``rows``, where a program holds all ``steps`` of its tile."""
    width = min(triton.next_power_of_2(channels), WIDTH)
    height = max(1, HELD // max(_FEWEST_STEPS, triton.next_power_of_2(steps)) // width)
    return Tiles(height, width, triton.cdiv(rows, height), triton.cdiv(channels, width))
