"""Small training runs, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdsnn.data._base import Split
from tdsnn.manifest import resolve
from tdsnn.schema import Manifest
from tdsnn.training.loop import Trainer
from tdsnn.training.recipe import override

SMALL = [
    "model.width=4",
    "model.timesteps=3",
    "batch_size=8",
    "optimizer=adamw",
    "weight_format=fp32",
    "model.neuron.decay_input=true",
    "epochs=2",
    "precision=fp32",
    "compile=false",
    "topography.preparation=retinotopic",
]


class Quiet:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def step(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def epoch(self, line: dict[str, Any]) -> None:
        pass


def make_split() -> Split:
    """Fifty pictures of two classes that differ in their upper half."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, 50)
    images = draws.integers(0, 60, (50, 1, 16, 16), dtype=np.uint8)
    images[labels == 1, :, :8] += 190
    return Split(
        images=images,
        labels=labels.astype(np.int64),
        classes=tuple("0123456789"),
        digest="0" * 64,
        pinned=False,
        origin="made in the test",
    )


def small(*changes: str, name: str = "tsresnet18") -> Manifest:
    return override(resolve(name), [*SMALL, "topography.cluster_units=8", "topography.clusters=2", *changes])


def trainer(manifest: Manifest, folder: Path, split: Split) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(manifest, folder=folder, train=split, held_out=split, device=torch.device("cpu"))
