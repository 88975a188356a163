"""Batch normalisation by the statistics of a batch that several processes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tdsnn.errors import UsageError
from tdsnn.processes import Team


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch normalisation whose mean and variance in training mode are over the images of all processes.

    Two means over the processes, of the mean and of the squares around it, are exact where
    ``torch.nn.SyncBatchNorm``, which runs on GPUs only, is: each process has as many values as the others.
    Parameters, buffers and their names are those of the normalisation that it replaces.

    Args:
        norm: what it replaces; its parameters and buffers are taken, not copied.
        team: the processes that share each batch equally.
    """

    def __init__(self, norm: nn.BatchNorm2d, team: Team) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        _share_tensors(norm, self)
        self.team = team

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), in the type that it came in."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean: Tensor = _Mean.apply(values.mean((0, 2, 3), keepdim=True), self.team)
        centred = values - mean
        variance: Tensor = _Mean.apply(centred.square().mean((0, 2, 3), keepdim=True), self.team)
        self._follow(mean.flatten(), variance.flatten(), values.numel() // self.num_features * self.team.size)
        out = centred * (variance + self.eps).rsqrt()
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Move the running statistics towards those (C,) of a batch of so many values per channel."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum PyTorch keeps the plain mean over all batches.
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (values / max(values - 1, 1)), share)


class _Mean(torch.autograd.Function):
    """The mean over the processes, whose gradients come from all of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.mean(own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.mean(gradient), None


def share_statistics(model: nn.Module, team: Team) -> None:
    """Let all normalisations of a network, in place, take the statistics of the whole batch.

    Raises:
        UsageError: it has a batch normalisation of another kind than ``BatchNorm2d``.
    """

    def shared(norm: nn.Module) -> nn.Module | None:
        if type(norm) is nn.BatchNorm2d:
            return SharedBatchNorm2d(norm, team)
        if isinstance(norm, _BatchNorm):
            raise UsageError(
                f"Processes can share the statistics of BatchNorm2d, not of {type(norm).__name__}.",
                hint="Train with --set sync_batch_norm=false",
            )
        return None

    _replace(model, shared)


def keep_statistics_apart(model: nn.Module) -> None:
    """Undo :func:`share_statistics`: one process alone can go on with the network."""

    def plain(norm: nn.Module) -> nn.Module | None:
        if not isinstance(norm, SharedBatchNorm2d):
            return None
        one = nn.BatchNorm2d(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        _share_tensors(norm, one)
        return one

    _replace(model, plain)


def _replace(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            other = replacement(child)
            if other is not None:
                setattr(parent, name, other)


def _share_tensors(source: nn.Module, target: nn.Module) -> None:
    for name, parameter in source.named_parameters(recurse=False):
        setattr(target, name, parameter)
    for name, buffer in source.named_buffers(recurse=False):
        setattr(target, name, buffer)
    target.train(source.training)
