"""What a spatial loss is, and the registry that a manifest's ``loss`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from tdsnn.registry import Registry
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.types import Topography


class SpatialLoss(Protocol):
    """Loss of one batch, weighted, and its parts for the log."""

    compiled: bool
    """Whether the compiled operators may run on CPU; False until somebody sets it."""

    def __call__(
        self, outputs: Mapping[str, Tensor], *, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``outputs``: layer name to (T, B, C, H, W); ``generator`` draws what the loss samples."""
        ...


SPATIAL_LOSSES: Registry[Callable[[Mapping[str, CorticalSheet], Topography], SpatialLoss]] = Registry(
    "spatial loss", "tdsnn.topography.losses", "ls tdsnn/topography/losses"
)
