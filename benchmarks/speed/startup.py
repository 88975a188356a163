"""How soon a benchmark of attacks is at work when everything is cached."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from benchmarks.speed._measure import Row, Settings, Target, in_fresh_process
from tdsnn import manifest
from tdsnn.attacks._gradient import respond
from tdsnn.benchmark.entries import load_entries
from tdsnn.data._base import load_split
from tdsnn.kernels.memory import keep_freed_memory

_MODEL = "tsresnet18"
_ROUNDS = 3
_IMAGES = 100


def run(settings: Settings) -> list[Row]:
    """From the start of a process to its first finished batch, after a run that filled the caches."""
    in_fresh_process(first_batch)
    seconds = [_started_to_finished() for _ in range(1 if settings.quick else min(settings.rounds, _ROUNDS))]
    return [
        Row(
            name=f"warm start: process start to the first {_IMAGES} verdicts of a benchmark",
            unit="s",
            ours=statistics.median(seconds),
            target=Target(bound="at most", value=10.0),
            details={"seconds": seconds},
        )
    ]


def first_batch() -> float:
    """Load and judge as ``tdsnn-zoo bench`` does; returns the time of day when the verdicts are there."""
    keep_freed_memory()
    names = (_MODEL, manifest.resolve(_MODEL).twin)
    loaded = load_entries(names, device=torch.device("cpu"), compiled=True)
    split = load_split(loaded.dataset, "test")
    images = torch.from_numpy(np.array(split.images[:_IMAGES])).float() / 255
    respond(loaded.entries[0].model, images)
    return time.time()


def _started_to_finished() -> float:
    started = time.time()
    return in_fresh_process(first_batch) - started
