"""The preparation of a batch as a share of a training step."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.speed._measure import Row, Settings, Target, interleave
from benchmarks.speed._steps import BATCH, CLASSES, OURS, SIZE, make_batch, make_step
from tdsnn.training.images import prepare

_WIDTH = 16
_IMAGES = 10_000
_AUGMENTATION = ("crop", "flip", "cutout")


def run(settings: Settings) -> list[Row]:
    """Choosing, augmenting and converting 64 images of 3x32x32, against our step at width 16."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (_IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=draws)
    labels = torch.randint(CLASSES, (_IMAGES,), generator=draws)
    step = partial(make_step(OURS, width=_WIDTH), make_batch())
    timings = interleave(
        {"step": step, "batch": partial(_prepare, images, labels, draws)}, rounds=settings.rounds, calls=5
    )
    return [
        Row(
            name=f"batch preparation ({', '.join(_AUGMENTATION)}) against a training step, width {_WIDTH}",
            unit="ms",
            stock=1e3 * timings.median("step"),
            ours=1e3 * timings.median("batch"),
            ratio=timings.ratio("batch", "step"),
            meaning="preparation / step",
            target=Target(bound="at most", value=0.03),
        )
    ]


def _prepare(images: Tensor, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the training loop does before a step."""
    chosen = torch.randint(len(images), (BATCH,), generator=draws)
    x = prepare(images[chosen], _AUGMENTATION, generator=draws, device=torch.device("cpu"))
    return x, labels[chosen]
