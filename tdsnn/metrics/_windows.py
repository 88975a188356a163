"""Square windows that tile a sheet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tdsnn.metrics._figures import Floats


def tiles(positions_U2: Floats, side_mm: float, *, least: int = 1) -> tuple[NDArray[np.int64], int, float]:
    """Cut the square around all units into equal tiles of about ``side_mm``, ``least`` or more a side.

    Returns:
        Tile of each unit (U,), number of tiles, and their side in mm.
    """
    low = positions_U2.min(0)
    extent = float((positions_U2.max(0) - low).max())
    across = max(least, round(extent / side_mm))
    cell = np.minimum(((positions_U2 - low) * (across / extent)).astype(np.int64), across - 1)
    return cell[:, 1] * across + cell[:, 0], across * across, extent / across


def members(tile_U: NDArray[np.int64], *, least: int) -> list[NDArray[np.int64]]:
    """Units of each tile that holds at least ``least``, in the order of the tiles."""
    order = np.argsort(tile_U, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(tile_U[order])) + 1)
    return [part for part in parts if len(part) >= least]
