"""Whether ours learns like the stock path: loss curves from equal weights on equal batches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from scipy.stats import t as student

from benchmarks.speed._measure import Ratio, Row, Settings, Target
from benchmarks.speed._steps import BATCH, CLASSES, OURS, SIZE, STOCK_BF16, Batch, make_step
from tdsnn.data._base import Split, load_split
from tdsnn.errors import MissingError

_WIDTH = 16
_NOISE = 0.15


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Mean loss of each seed, and the mean difference with the half-width of its 95 % t-interval."""

    stock: list[float]
    ours: list[float]
    difference: float
    half_width: float


def run(settings: Settings) -> list[Row]:
    """200 steps at width 16, batch 64, both sides in bf16, from several seeds.

    The difference counts as noise if the t-interval over the seeds contains zero. One run says nothing: a
    spike that rounding flips flips others, and soon two bf16 runs share little but their batches.
    """
    steps, seeds = (20, 2) if settings.quick else (200, 4)
    runs = [losses(seed, steps=steps) for seed in range(seeds)]
    found = compare([run[STOCK_BF16] for run in runs], [run[OURS] for run in runs])
    size = abs(found.difference) / max(found.half_width, 1e-12)
    return [
        Row(
            name=f"loss over {steps} steps, width {_WIDTH}, {_origin()}, {seeds} seeds, against {STOCK_BF16}",
            unit="cross-entropy",
            stock=statistics.fmean(found.stock),
            ours=statistics.fmean(found.ours),
            ratio=Ratio(median=size, low=size, high=size),
            meaning="difference / half-width of its 95 % interval",
            target=Target(bound="at most", value=1.0),
            details={
                "stock_by_seed": found.stock,
                "ours_by_seed": found.ours,
                "difference": found.difference,
                "half_width": found.half_width,
            },
        )
    ]


def losses(seed: int, *, steps: int) -> dict[str, list[float]]:
    """Loss before every step of both sides, from equal weights on equal batches."""
    sides = {side: make_step(side, width=_WIDTH, seed=seed) for side in (STOCK_BF16, OURS)}
    curves: dict[str, list[float]] = {side: [] for side in sides}
    for batch in _batches(steps, seed=seed):
        for side, step in sides.items():
            curves[side].append(step(batch))
    return curves


def compare(stock: list[list[float]], ours: list[list[float]]) -> Comparison:
    """Compare the curves of at least two seeds by their means."""
    means = [[statistics.fmean(curve) for curve in curves] for curves in (stock, ours)]
    differences = [b - a for a, b in zip(*means, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return Comparison(
        stock=means[0],
        ours=means[1],
        difference=statistics.fmean(differences),
        half_width=float(student.ppf(0.975, len(differences) - 1)) * error,
    )


@cache
def _split() -> Split | None:
    try:
        return load_split("cifar10", "train")
    except MissingError:
        return None


def _origin() -> str:
    return "synthetic images" if _split() is None else "CIFAR-10"


def _batches(steps: int, *, seed: int) -> Iterator[Batch]:
    """CIFAR-10 where it is to be had, else separable synthetic images."""
    draws = torch.Generator().manual_seed(seed)
    split = _split()
    if split is None:
        return (_synthetic(draws) for _ in range(steps))
    order = torch.randperm(len(split.labels), generator=draws)[: steps * BATCH].view(steps, BATCH)
    return (
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
