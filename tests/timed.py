"""A spiking network of two units whose spike times follow from the pixels, for tests of time metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from tdsnn.data._base import Split
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State
from tdsnn.temporal._base import Subject
from tdsnn.topography.layouts import SheetSpec

EVERY_STEP, EVERY_SECOND, EVERY_THIRD, NEVER = 255, 179, 153, 76
"""Pixels of 0..255, by when their unit fires: h = v / 2 + x reaches 1 there and falls back to 0."""


class TwoUnits(Model):
    """One LIF unit for each of two pixels; the logits of a step are its spikes."""

    def __init__(self, *, drive: float = 1.0, timesteps: int = 4) -> None:
        super().__init__(
            architecture="two_units",
            arguments={"drive": drive, "timesteps": timesteps},
            timesteps=timesteps,
            num_classes=2,
            in_channels=1,
            mean=[0.0],
            std=[1.0],
            sheet_specs=[SheetSpec("units", 1.0, "maps")],
        )
        self.drive = drive
        self.units = LIF(LIFConfig(tau=2.0, decay_input=False))
        self.unused = nn.Parameter(self.mean.clone())

    def step(self, encoded: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        return self.units(self.drive * encoded.flatten(1)[None], after, "units")[0], after


def two_units() -> Model:
    """For the command line."""
    return TwoUnits().eval()


def split(rows: Sequence[tuple[int, int]], labels: Sequence[int]) -> Split:
    """Images (N, 1, 1, 2) of pairs of pixels."""
    return Split(
        images=np.array(rows, dtype=np.uint8).reshape(-1, 1, 1, 2),
        labels=np.array(labels, dtype=np.int64),
        classes=("left", "right"),
        digest="0" * 64,
        pinned=False,
        origin="toy",
    )


ROWS = [
    (EVERY_STEP, EVERY_SECOND),
    (EVERY_SECOND, EVERY_THIRD),
    (EVERY_THIRD, NEVER),
    (EVERY_STEP, EVERY_STEP),
    (EVERY_THIRD, EVERY_SECOND),
]
LABELS = [0, 0, 0, 1, 1]


def subject(model: Model | None = None, *, batch_size: int = 2) -> Subject:
    """The two units and all images."""
    return Subject(
        model=(model or TwoUnits()).eval(), split=split(ROWS, LABELS), n=len(ROWS), batch_size=batch_size
    )
