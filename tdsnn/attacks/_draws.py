"""Random numbers that belong to a sample, not to a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.runtime import send


class SampleDraws:
    """One random stream for each sample of a batch.

    A stream is fixed by (seed, attack name, dataset index) alone: another batch size, order or composition,
    or another device, gives a sample the same numbers. It uses the counter-based Philox generator (Salmon et
    al., 2011, doi:10.1145/2063384.2063405), whose streams are independent for different keys.

    Args:
        seed: seed of the whole benchmark, any integer.
        stream: what the numbers are for, by convention the attack's name.
        indices: dataset index of each sample, non-negative.
    """

    def __init__(self, *, seed: int, stream: str, indices: Sequence[int] | NDArray[np.int64]) -> None:
        digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
        word = int.from_bytes(digest[:8], "little")
        keys = [np.array([word, int(index)], dtype=np.uint64) for index in indices]
        self._generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def __len__(self) -> int:
        return len(self._generators)

    def uniform(self, like: Tensor) -> Tensor:
        """Next numbers in [-1, 1), in the shape (N, ...), dtype and device of ``like``."""
        return 2 * self._stack([g.random(like.shape[1:], np.float32) for g in self._generators], like) - 1

    def poisson(self, means: Tensor) -> Tensor:
        """Next Poisson numbers with these means (N, ...), in their dtype and device."""
        rows = zip(self._generators, means.double().cpu().numpy(), strict=True)
        return self._stack([g.poisson(row).astype(np.float32) for g, row in rows], means)

    def normal(self, like: Tensor) -> Tensor:
        """Next standard normal numbers, in the shape (N, ...), dtype and device of ``like``."""
        return self._stack([g.standard_normal(like.shape[1:], np.float32) for g in self._generators], like)

    def _stack(self, rows: list[NDArray[np.float32]], like: Tensor) -> Tensor:
        return (
            send(torch.from_numpy(np.stack(rows)), like.device).to(like) if rows else torch.empty_like(like)
        )
