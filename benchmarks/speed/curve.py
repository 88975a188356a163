"""Whether ours learns like the stock path: loss curves from equal weights on equal batches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.stats import t as student

from benchmarks.speed._measure import Ratio, Row, Settings, Target
from benchmarks.speed._steps import BATCH, CLASSES, OURS, SIZE, STOCK_BF16, Batch, make_step
from tdsnn.data._base import load_split
from tdsnn.errors import MissingError

_WIDTH = 16
_WINDOWS = 10
_NOISE = 0.15


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Mean difference over windows with the half-width of its 95 % t-interval, in units of the curves."""

    stock: list[float]
    ours: list[float]
    difference: float
    half_width: float


def run(settings: Settings) -> list[Row]:
    """200 steps at width 16, batch 64, both sides in bf16.

    The difference counts as noise if the t-interval of the window means contains zero.
    """
    steps = 20 if settings.quick else 200
    origin, batches = _batches(steps)
    sides = {side: make_step(side, width=_WIDTH) for side in (STOCK_BF16, OURS)}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    for batch in batches:
        for side, step in sides.items():
            losses[side].append(step(batch))
    found = compare(losses[STOCK_BF16], losses[OURS])
    size = abs(found.difference) / max(found.half_width, 1e-12)
    return [
        Row(
            name=f"loss over {steps} steps, width {_WIDTH}, {origin}, against {STOCK_BF16}",
            unit="cross-entropy",
            stock=statistics.fmean(losses[STOCK_BF16]),
            ours=statistics.fmean(losses[OURS]),
            ratio=Ratio(median=size, low=size, high=size),
            meaning="difference / half-width of its 95 % interval",
            target=Target(bound="at most", value=1.0),
            details={
                "stock_windows": found.stock,
                "ours_windows": found.ours,
                "difference": found.difference,
                "half_width": found.half_width,
            },
        )
    ]


def compare(stock: list[float], ours: list[float]) -> Comparison:
    """Compare two curves of at least ten steps by the means of ten equal windows; a remainder is left out."""
    size = len(stock) // _WINDOWS
    means = [
        [statistics.fmean(curve[i * size : (i + 1) * size]) for i in range(_WINDOWS)]
        for curve in (stock, ours)
    ]
    differences = [b - a for a, b in zip(*means, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(_WINDOWS)
    return Comparison(
        stock=means[0],
        ours=means[1],
        difference=statistics.fmean(differences),
        half_width=float(student.ppf(0.975, _WINDOWS - 1)) * error,
    )


def _batches(steps: int) -> tuple[str, Iterator[Batch]]:
    """CIFAR-10 where it is to be had, else separable synthetic images; and which of them it is."""
    draws = torch.Generator().manual_seed(0)
    try:
        split = load_split("cifar10", "train")
    except MissingError:
        return "synthetic images", (_synthetic(draws) for _ in range(steps))
    order = torch.randperm(len(split.labels), generator=draws)[: steps * BATCH].view(steps, BATCH)
    return "CIFAR-10", (
        _batch(torch.from_numpy(split.images[rows]).float() / 255, torch.from_numpy(split.labels[rows]))
        for rows in order.numpy()
    )


def _synthetic(draws: torch.Generator) -> Batch:
    """One fixed pattern for each class under noise."""
    patterns = torch.rand(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(CLASSES, (BATCH,), generator=draws)
    noise = _NOISE * torch.randn(BATCH, 3, SIZE, SIZE, generator=draws)
    return _batch((patterns[labels] + noise).clamp_(0, 1), labels)


def _batch(images: torch.Tensor, labels: torch.Tensor) -> Batch:
    return Batch(images.contiguous(memory_format=torch.channels_last), labels)
