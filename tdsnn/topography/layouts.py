"""How the output of a layer lies on its sheet: the layouts, and the one order in which units are counted.

Unit u of a layer with maps (C, H, W) is u = (c H + h) W + w: channel c at row h and column w. Whatever the
layout, sheets, responses and saved positions count like that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.registry import suggest

Layout = Literal["maps", "tokens"]
"""``maps``: (T, N, C, H, W), or (N, C, H, W) without time; of units without a place (T, N, C) or (N, C), with
H = W = 1. ``tokens``: (T, N, L, C), or (N, L, C) without time."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_AXES = {
    "maps": "(T, N, C, H, W), (N, C, H, W), (T, N, C) or (N, C)",
    "tokens": "(T, N, L, C) or (N, L, C)",
}
_TIMED = {"maps": (5, 3), "tokens": (4,)}
"""Numbers of axes of an output whose first one is time."""
_UNTIMED = {"maps": (4, 2), "tokens": (3,)}


@dataclass(frozen=True)
class SheetSpec:
    """A layer whose units lie on a cortical sheet.

    Args:
        layer: name of the module.
        size_mm: side of the square sheet.
        layout: of the module's output.
        grid: rows and columns (H, W) of the tokens, of which the one at row h and column w is h W + w; None
            if they are a square.

    Raises:
        UsageError: a size that is not above 0, no such layout, or a grid of maps or below 1 x 1.
    """

    layer: str
    size_mm: float
    layout: Layout = "maps"
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.size_mm > 0:
            raise UsageError(f"The sheet of {self.layer} needs a side above 0 mm, not {self.size_mm}.")
        if self.layout not in LAYOUTS:
            raise suggest(self.layout, LAYOUTS, kind="layout")
        if self.grid is not None and (self.layout != "tokens" or min(self.grid) < 1):
            raise UsageError(
                f"The layer '{self.layer}' of the layout '{self.layout}' cannot have the grid {self.grid}.",
                hint='A grid is for tokens: SheetSpec(layer, size_mm, "tokens", grid=(rows, columns))',
            )

    def as_maps(self, output: Tensor) -> Tensor:
        """An output of the layer as :func:`as_maps` gives it."""
        return as_maps(output, self.layout, layer=self.layer, grid=self.grid)

    def units(self, output: Tensor) -> Tensor:
        """An output of the layer as units (T, N, U); a copy where channels are last in memory."""
        return self.as_maps(output).flatten(2)


def as_maps(output: Tensor, layout: Layout, *, layer: str, grid: tuple[int, int] | None = None) -> Tensor:
    """Any output as maps (T, N, C, H, W), a view of it; T = 1 if it has no time.

    Args:
        layer: name of the module, for messages.
        grid: as of :class:`SheetSpec`.

    Raises:
        UsageError: not the layout's axes, or tokens that are not as many as the grid has places.
    """
    timed = has_time(output, layout)
    if not timed and output.ndim not in _UNTIMED[layout]:
        raise UsageError(
            f"The layer '{layer}' gives {tuple(output.shape)}: no units in the layout '{layout}', which is "
            f"{_AXES[layout]}.",
            hint="Name a layer of that layout, or say which it has: SheetSpec(layer, size_mm, layout)",
        )
    output = output if timed else output[None]
    if layout == "maps":
        return output if output.ndim == 5 else output[..., None, None]
    steps, samples, tokens, channels = output.shape
    rows, columns = _grid_of(tokens, grid, layer=layer)
    return output.view(steps, samples, rows, columns, channels).permute(0, 1, 4, 2, 3)


def _grid_of(tokens: int, grid: tuple[int, int] | None, *, layer: str) -> tuple[int, int]:
    side = math.isqrt(tokens)
    rows, columns = grid or (side, side)
    if rows * columns != tokens:
        raise UsageError(
            f"The layer '{layer}' gives {tokens} tokens, which do not fill a "
            + (f"grid of {rows} x {columns}." if grid else "square grid."),
            hint="Leave out a class token, or say where they lie: "
            f'SheetSpec("{layer}", size_mm, "tokens", grid=(rows, columns))',
        )
    return rows, columns


def has_time(output: Tensor, layout: Layout) -> bool:
    """Whether the first axis of an output of this layout is time."""
    return output.ndim in _TIMED[layout]


def likely_layout(output: Tensor, *, samples: int) -> Layout:
    """The layout of a layer that nobody declared, by the axis on which its output has the samples.

    What has three axes with the samples first, or four with them second and not first, counts as tokens.
    """
    shape = tuple(output.shape)
    untimed = len(shape) == 3 and shape[0] == samples
    timed = len(shape) == 4 and shape[0] != samples and shape[1] == samples
    return "tokens" if timed or untimed else "maps"
