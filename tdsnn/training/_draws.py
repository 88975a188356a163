"""Random draws of training, each a function of (seed, purpose, counter) and of nothing that came before.

A resumed run needs no generator state: epoch and step say everything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

LANES = 16
"""Parts of a streamed epoch that are read side by side."""
SHUFFLED_ROWS = 4096
"""Of a streamed epoch that are in memory, encoded, and take any order; of ImageNet 450 MB."""


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator for one draw."""
    key = f"{seed}:{purpose}:{':'.join(map(str, counters))}"
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))


def batches(seed: int, epoch: int, *, samples: int, batch_size: int) -> tuple[Tensor, ...]:
    """Indices of each full batch of an epoch, in an order of its own."""
    order = torch.randperm(samples, generator=generator(seed, "order", epoch))
    return order[: samples - samples % batch_size].view(-1, batch_size).unbind(0)


def streamed_batches(
    seed: int, epoch: int, *, groups: Sequence[int], batch_size: int, processes: int
) -> tuple[Tensor, ...]:
    """As :func:`batches`, for rows that can be read in groups only, a few of which fit into memory.

    The groups, in an order of their own, are dealt to lanes of equal length; each lane shuffles its rows in
    windows, and the places of a batch take turns over the lanes. A process that has every n-th image of each
    batch so reads lanes of its own; the batches are the same for 1, 2, 4, ... processes up to :data:`LANES`.

    Args:
        groups: rows in each; they are numbered through.
    """
    draws = generator(seed, "order", epoch)
    ends = torch.tensor(groups).cumsum(0)
    order = torch.randperm(len(groups), generator=draws).tolist()
    sequence = torch.cat([torch.arange(int(ends[one]) - groups[one], int(ends[one])) for one in order])
    lanes = math.gcd(batch_size, LANES)
    lanes = processes if lanes % processes else lanes
    steps = len(sequence) // batch_size
    length, window = steps * (batch_size // lanes), max(1, SHUFFLED_ROWS // lanes)
    laid = sequence[: lanes * length].view(lanes, length)
    # Windows of one lane begin where those of others are half through, so that groups are not read in bursts.
    offset = torch.arange(lanes)[:, None] * window // lanes
    windows = (torch.arange(length) + offset) // window
    keys = windows + torch.rand(lanes, length, generator=draws, dtype=torch.float64)
    shuffled = laid.gather(1, keys.argsort(1))
    return shuffled.view(lanes, steps, -1).permute(1, 2, 0).reshape(steps, batch_size).unbind(0)
