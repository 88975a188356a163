"""From the network after its last step to the one that is measured and published."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tdsnn.errors import GateError
from tdsnn.runtime import deterministic
from tdsnn.schema import Recipe
from tdsnn.training.optim import Average


def finish(model: nn.Module, recipe: Recipe, *, average: Average | None, batches: Iterable[Tensor]) -> None:
    """Turn a model into the one to publish: averaged weights, rounded, settled statistics, eval mode.

    Args:
        batches: for :func:`settle_statistics`; looked at only where the recipe settles them.
    """
    if average is not None:
        model.load_state_dict(average.values)
    if recipe.weight_format == "fp16":
        round_weights(model)
    if recipe.bn_batches:
        settle_statistics(model, batches)
    model.eval()


@torch.no_grad()
def round_weights(model: nn.Module) -> None:
    """Round all matrices and kernels to half precision, so that checkpoints of half the size are exact.

    Raises:
        GateError: a weight is too large for it, or not finite.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half())
            if not parameter.isfinite().all():
                raise GateError(
                    f"The weights '{name}' do not fit half precision, which ends at 65504.",
                    hint="Train with --set weight_format=fp32",
                )


@torch.no_grad()
def settle_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Mean statistics over many training batches; running ones hang on the last ten or so, and the flips
    of neurons near their threshold make that felt. In full precision, as at inference.

    Args:
        batches: images (N, C, H, W) in [0, 1], on the model's device.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a plain mean
    model.train()
    with deterministic():
        for images in batches:
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
