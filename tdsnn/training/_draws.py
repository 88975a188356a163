"""Random draws of training, each a function of (seed, purpose, counter) and of nothing that came before.

A resumed run needs no generator state: epoch and step say everything.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU generator for one draw."""
    key = f"{seed}:{purpose}:{':'.join(map(str, counters))}"
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))


def batches(seed: int, epoch: int, *, samples: int, batch_size: int) -> tuple[Tensor, ...]:
    """Indices of each full batch of an epoch, in an order of its own."""
    order = torch.randperm(samples, generator=generator(seed, "order", epoch))
    return order[: samples - samples % batch_size].view(-1, batch_size).unbind(0)
