"""Mean and variance of each channel, and what a batch normalisation does with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tdsnn.kernels._library import STORAGE, library
from tdsnn.kernels._operators import define
from tdsnn.kernels.gpu import _ready as gpu


class Normalisation(NamedTuple):
    """What a batch normalisation does in one call; tensors (C,) in fp32, all None without normalisation."""

    mean: Tensor | None = None
    variance: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 0.0
    of_batch: bool = False
    """Whether mean and variance are those of the operand itself, so that gradients go through them."""


def normalisation(bn: nn.BatchNorm2d, x_MC: Tensor) -> Normalisation:
    """What ``bn`` does to ``x_MC`` (M, C); in training mode its running statistics move, as in PyTorch.

    Args:
        bn: with weights in fp32 and running statistics.
        x_MC: M at least 2 in training mode.
    """
    mean, variance, batches = bn.running_mean, bn.running_var, bn.num_batches_tracked
    assert mean is not None
    assert variance is not None
    assert batches is not None
    if not bn.training:
        return Normalisation(mean, variance, bn.weight, bn.bias, bn.eps)
    batch_mean, batch_variance = moments(x_MC)
    with torch.no_grad():
        batches.add_(1)
        # Without a momentum PyTorch keeps the plain mean over all batches.
        share = 1.0 / batches if bn.momentum is None else bn.momentum
        mean.lerp_(batch_mean, share)
        variance.lerp_(batch_variance * (len(x_MC) / (len(x_MC) - 1)), share)
    return Normalisation(batch_mean, batch_variance, bn.weight, bn.bias, bn.eps, of_batch=True)


def moments(x_MC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) in fp32 over the rows of ``x_MC`` (M, C), fp32 or bf16.

    Constants for autograd: the operator that normalises with them gives the gradient through them.

    Raises:
        MissingError: there is no operator for this device here.
    """
    mean, variance = _MOMENTS(x_MC.detach())
    return mean, variance


def _moments(x_MC: Tensor) -> tuple[Tensor, Tensor]:
    x_MC = x_MC.contiguous()
    mean, variance = outputs = _empty_moments(x_MC)
    library().call(
        "tdsnn_moments",
        x_MC.data_ptr(),
        STORAGE[x_MC.dtype],
        *x_MC.shape,
        torch.get_num_threads(),
        mean.data_ptr(),
        variance.data_ptr(),
    )
    return outputs


def _empty_moments(x_MC: Tensor) -> tuple[Tensor, Tensor]:
    mean = x_MC.new_empty(x_MC.shape[1], dtype=torch.float32)
    return mean, torch.empty_like(mean)


_MOMENTS = define(
    "moments(Tensor x) -> (Tensor mean, Tensor variance)",
    cpu=_moments,
    gpu=gpu.operator("moments", "moments"),
    fake=_empty_moments,
)
