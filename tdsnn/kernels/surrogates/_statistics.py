"""Surrogates whose sharpness follows from how far potentials are from the threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.kernels.lif import atan_slope
from tdsnn.kernels.surrogates._base import Memory, Surrogate

MEAN_DECAY = 0.9
SPREAD_WEIGHT = 1.5
SMALLEST = 1e-4


@dataclass(frozen=True)
class Adaptive(Surrogate):
    """Adaptive sharpness surrogate gradient, ASSG (Wang et al., 2025, arXiv:2512.22522).

    Each neuron keeps, for each step and sample, moving means M of the distance from the threshold and D of
    its deviation from M, over the passes of an attack; the surrogate is an arctangent of sharpness
    w / (M + 1.5 D + 1e-4). The constant is A / 2, between 0 and 0.5, and w = 2 / pi tan(pi A / 2). Steps of a
    network that calls its layers step by step share M and D.
    """

    @property
    def numerator(self) -> float:
        """w."""
        assert self.constant is not None
        return 2 / math.pi * math.tan(math.pi * self.constant)

    def slopes(self, above: Tensor, memory: Memory) -> Tensor:
        numerator, mean, spread = self.statistics(above.shape, memory, like=above)
        mean.lerp_(above.abs(), 1 - MEAN_DECAY)
        spread.lerp_((above.abs() - mean).abs(), 1 - MEAN_DECAY)
        return atan_slope(above, numerator / (mean + SPREAD_WEIGHT * spread + SMALLEST))

    def statistics(
        self, shape: torch.Size, memory: Memory, *, like: Tensor | None = None
    ) -> tuple[float, Tensor, Tensor]:
        if not memory:
            like = torch.empty(0) if like is None else like
            memory |= {"mean": like.new_ones(shape), "spread": like.new_zeros(shape)}
        if memory["mean"].shape != shape:
            raise UsageError(
                f"The surrogate {self} has noted {memory['mean'].shape[1]} samples and meets {shape[1]}.",
                hint="Where samples leave a batch, say so: model.keep_samples(places).",
            )
        return self.numerator, memory["mean"], memory["spread"]


@dataclass(frozen=True)
class PotentialDependent(Surrogate):
    """Potential-dependent surrogate gradient, PDSG (Lun et al., 2025, arXiv:2503.03272).

    The derivative is a normal density of standard deviation s and mean s / 2, where s is the deviation of a
    channel's potentials over places and the steps so far; 1 where they do not vary. In the paper also over
    the batch: here over each sample alone, so that no verdict depends on which samples share a batch.
    """

    def slopes(self, above: Tensor, memory: Memory) -> Tensor:
        # A channel's deviation is the same for the distance from the threshold as for the potential.
        steps, _, places, _ = above.shape
        count = places * torch.arange(1, steps + 1, dtype=above.dtype, device=above.device).view(-1, 1, 1, 1)
        mean = above.sum(2, keepdim=True).cumsum(0) / count
        square = above.square().sum(2, keepdim=True).cumsum(0) / count
        variance = (square - mean.square()).clamp(min=0) * count / (count - 1).clamp(min=1)
        deviation = torch.where(variance > 0, variance, 1.0).sqrt()
        standard = above / deviation - 0.5
        return torch.exp(-0.5 * standard.square()) / (math.sqrt(2 * math.pi) * deviation)
