"""Time of a model and of what runs its exported file, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from tdsnn.certificates import Latency
from tdsnn.exporting.formats._base import Exported
from tdsnn.models._base import Model

_BATCHES = (1, 64)
"""The latency of an answer, and throughput."""
_ROUNDS = 9


def latency(model: Model, exported: Exported, images: Tensor, *, timesteps: int) -> tuple[Latency, ...]:
    """Medians over alternating rounds, after one run of each that does not count.

    Args:
        model: on the CPU, in eval mode, through the operators that it is set to.
        images: (N, C, H, W), float in [0, 1], N at least 1; repeated as needed.
    """
    found = []
    for size in _BATCHES:
        batch = images[torch.arange(size) % len(images)]
        ours, theirs = [], []
        for _ in range(_ROUNDS + 1):
            ours.append(_milliseconds(lambda x: model(x, timesteps), batch))
            theirs.append(_milliseconds(exported.logits, batch))
        found.append(
            Latency(
                batch=size,
                rounds=_ROUNDS,
                model_ms=statistics.median(ours[1:]),
                runtime_ms=statistics.median(theirs[1:]),
            )
        )
    return tuple(found)


def _milliseconds(answer: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    with torch.inference_mode():
        start = perf_counter()
        answer(batch)
        return 1e3 * (perf_counter() - start)
