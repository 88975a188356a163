"""Cortical sheets: where the units of a layer lie, in millimetres.

Layout after TDANN (Margalit et al. 2024): unit (c, h, w) lies near the centre of the receptive field of pixel
(h, w), displaced at random within one neighbourhood square, plus a little jitter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.registry import suggest
from tdsnn.schema import SheetRecord
from tdsnn.topography.layouts import Layout, SheetSpec

JITTER_MM = 0.3
"""Standard deviation of the final jitter, the same for every area (TDANN)."""
_OVERLAP_FIRST = 0.1
"""Receptive-field overlap of the first sheet; it doubles with each halving of the resolution."""


@dataclass(frozen=True, kw_only=True)
class CorticalSheet:
    """Positions of one layer's units.

    Args:
        layer: name of the module whose output lies on the sheet.
        shape: (C, H, W) of that output as maps.
        size_mm: side of the square sheet.
        neighbourhood_mm: side w of one receptive-field square.
        seed: seed of the random displacements.
        preparation: how the positions were made, e.g. ``retinotopic``.
        positions: (C * H * W, 2) float32, mm; row u is unit u in the order of
            :mod:`tdsnn.topography.layouts`.
        layout: of the module's output; tokens lie on the grid (H, W).
        unit_mm: the distance that counts as one in :meth:`proximity`.
        log: what the preparation did, as plain values for JSON; empty for ``retinotopic``.
    """

    layer: str
    shape: tuple[int, int, int]
    size_mm: float
    neighbourhood_mm: float
    seed: int
    preparation: str
    positions: Tensor
    layout: Layout = "maps"
    unit_mm: float = 1.0
    log: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        units = channels * height * width
        if tuple(self.positions.shape) != (units, 2) or not bool(self.positions.isfinite().all()):
            raise IntegrityError(
                f"The sheet of {self.layer} needs finite positions of shape ({units}, 2), "
                f"not {tuple(self.positions.shape)}."
            )
        for what, length in (
            ("side of the", self.size_mm),
            ("neighbourhood on the", self.neighbourhood_mm),
            ("unit of distance on the", self.unit_mm),
        ):
            if not 0 < length < math.inf:
                raise UsageError(f"The {what} sheet of {self.layer} must be above 0 mm, not {length}.")

    @property
    def spec(self) -> SheetSpec:
        """What the layer's module must give."""
        grid = self.shape[1:] if self.layout == "tokens" else None
        return SheetSpec(self.layer, self.size_mm, self.layout, grid)

    def as_maps(self, output: Tensor) -> Tensor:
        """An output of the layer as maps (T, N, C, H, W) of the sheet's shape, a view of it.

        Raises:
            UsageError: another layout or shape.
        """
        maps_TNCHW = self.spec.as_maps(output)
        if maps_TNCHW.shape[2:] != self.shape:
            raise UsageError(
                f"The sheet of {self.layer} is for maps {self.shape}, but the layer gives "
                f"{tuple(maps_TNCHW.shape[2:])}.",
                hint="Give the model images of the size that its sheets were made for.",
            )
        return maps_TNCHW

    def proximity(self, positions: Tensor) -> Tensor:
        """1 / (1 + distance / unit) of all pairs, (..., N, N), of places (..., N, 2) in mm.

        The unit matters: on an IT sheet of 70 mm, with a unit of 1 mm, the nearest hundredth of the pairs has
        42 % of the variance; with a unit of 7 mm, as on the 10 mm that TDANN trained on, 14 %.
        """
        # The default mode goes through a matrix product, which is off by 0.02 mm on a sheet of 70 mm.
        distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
        return 1.0 / (1.0 + distances / self.unit_mm)

    @cached_property
    def extent(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest coordinates of any unit, (2,) each, mm."""
        return self.positions.amin(0), self.positions.amax(0)

    def units_within(self, centre: Tensor, half_mm: float) -> Tensor:
        """Indices, ascending, of the units in a square of side ``2 * half_mm`` around ``centre`` (2,), mm."""
        order, x, y = self._by_x
        x_centre, y_centre = centre.numpy()
        half = np.float32(half_mm)
        # A strip that is a little too wide; the distances below decide, rounded as everywhere.
        first, last = np.searchsorted(x, (x_centre - 1.001 * half - 1e-6, x_centre + 1.001 * half + 1e-6))
        strip = slice(int(first), int(last))
        inside = (np.abs(x[strip] - x_centre) <= half) & (np.abs(y[strip] - y_centre) <= half)
        return torch.from_numpy(np.sort(order[strip][inside]))

    @cached_property
    def _by_x(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Units in the order of their first coordinate, and both coordinates in that order."""
        x, y = self.positions.numpy().T
        order = np.argsort(x, kind="stable")
        return order, x[order], y[order]

    def metadata(self) -> SheetRecord:
        """Everything but the positions, as plain values for ``config.json``."""
        record = SheetRecord(
            shape=self.shape,
            size_mm=self.size_mm,
            neighbourhood_mm=self.neighbourhood_mm,
            seed=self.seed,
            preparation=self.preparation,
        )
        if self.layout != "maps":
            record["layout"] = self.layout
        if self.unit_mm != 1.0:
            record["unit_mm"] = self.unit_mm
        if self.log:
            record["log"] = dict(self.log)
        return record

    @classmethod
    def from_metadata(cls, layer: str, metadata: SheetRecord, positions: Tensor) -> CorticalSheet:
        """Rebuild a saved sheet.

        Raises:
            IntegrityError: positions that do not fit.
        """
        channels, height, width = metadata["shape"]
        return cls(
            layer=layer,
            shape=(channels, height, width),
            size_mm=metadata["size_mm"],
            neighbourhood_mm=metadata["neighbourhood_mm"],
            seed=metadata["seed"],
            preparation=metadata["preparation"],
            positions=positions,
            layout=metadata.get("layout", "maps"),
            unit_mm=metadata.get("unit_mm", 1.0),
            log=metadata.get("log", {}),
        )

    @classmethod
    def retinotopic(
        cls,
        spec: SheetSpec,
        shape: tuple[int, int, int],
        *,
        first_height: int,
        seed: int,
        unit_mm: float = 1.0,
    ) -> CorticalSheet:
        """Random positions within the receptive field of each unit, of which tokens have their place's.

        Args:
            shape: (C, H, W) of the layer's maps.
            first_height: H of the first sheet of the network; sets the overlap of this one.
        """
        if min(shape) < 1:
            raise UsageError(f"The sheet of {spec.layer} needs at least one unit, not {shape}.")
        channels, height, width = shape
        size_mm, layer = spec.size_mm, spec.layer
        square = neighbourhood_mm(size_mm, height=height, first_height=first_height)
        generator = torch.Generator().manual_seed(_layer_seed(seed, layer))
        rows = torch.linspace(square / 2, size_mm - square / 2, height)
        columns = torch.linspace(square / 2, size_mm - square / 2, width)
        centres_HW2 = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flip(-1)
        offsets = (torch.rand(channels, height, width, 2, generator=generator) - 0.5) * square
        positions = (centres_HW2 + offsets).reshape(-1, 2)
        return cls(
            layer=layer,
            shape=shape,
            size_mm=size_mm,
            neighbourhood_mm=square,
            seed=seed,
            preparation="retinotopic",
            positions=_jitter(positions, generator),
            layout=spec.layout,
            unit_mm=unit_mm,
        )


def neighbourhood_mm(size_mm: float, *, height: int, first_height: int) -> float:
    """Side of one receptive-field square, w = S / (H - H o + o) with o = min(0.1 H_first / H, 1).

    The rule reproduces all five widths of TDANN's table and scales to any input size.
    """
    overlap = min(_OVERLAP_FIRST * first_height / height, 1.0)
    return size_mm / (height - height * overlap + overlap)


def build_sheets(
    shapes: Mapping[str, tuple[int, int, int]],
    specs: Iterable[SheetSpec],
    *,
    seed: int,
    first_height: int | None = None,
    units_mm: Mapping[str, float] | None = None,
) -> dict[str, CorticalSheet]:
    """Fresh retinotopic sheets for layers of the given shapes, in the order of ``shapes``.

    Args:
        shapes: layer to (C, H, W) of its maps.
        specs: of these layers, and perhaps of others.
        first_height: H of the network's first sheet, which sets the overlap of receptive fields; None if
            ``shapes`` begins with it.
        units_mm: the distance that counts as one, for layers where it is not 1 mm.
    """
    units = units_mm or {}
    for layer in units:
        if layer not in shapes:
            raise suggest(layer, shapes, kind="layer with a sheet")
    by_layer = {spec.layer: spec for spec in specs}
    missing = [layer for layer in shapes if layer not in by_layer]
    if missing:
        raise UsageError(
            f"No sheet is specified for {', '.join(missing)}.",
            hint="Say how large it is: SheetSpec(layer, size_mm, layout)",
        )
    first = first_height or next((height for _, height, _ in shapes.values()), 1)
    return {
        layer: CorticalSheet.retinotopic(
            by_layer[layer],
            shape,
            first_height=first,
            seed=seed,
            unit_mm=units.get(layer, 1.0),
        )
        for layer, shape in shapes.items()
    }


def _jitter(positions: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian jitter, then shrink back to the range and the minimum the positions had before."""
    low, high = positions.amin(0), positions.amax(0)
    moved = positions + torch.randn(positions.shape, generator=generator) * JITTER_MM
    growth = (moved.amax(0) - moved.amin(0)) / (high - low).clamp_min(1e-9)
    moved = moved / growth
    return moved - moved.amin(0) + low


def _layer_seed(seed: int, layer: str) -> int:
    """A seed of its own for each layer, so that adding a layer moves no other."""
    return int.from_bytes(hashlib.sha256(f"sheet:{seed}:{layer}".encode()).digest()[:7])
