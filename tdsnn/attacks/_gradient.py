"""Shared parts of gradient attacks: the input gradient and ascent inside the Linf ball."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn.errors import GateError


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters inside the block; afterwards every mode and flag is as found."""
    training = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter in trainable:
            parameter.requires_grad_(True)


def finite(values: Tensor, what: str) -> Tensor:
    """``values`` unchanged.

    Raises:
        GateError: some are NaN or infinite. Such logits have an argmax, so they would pass for a verdict.
    """
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise GateError(
            f"{bad} of {values.numel()} {what} are not finite, so no verdict can be given.",
            hint="Check the checkpoint: tdsnn-zoo info NAME",
        )
    return values


def predict(model: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Predicted classes (N,) without autograd; ties go to the lowest class."""
    with torch.no_grad():
        return finite(model(x_NCHW), "logits").argmax(1)


def loss_gradient(model: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) at ``x_NCHW`` and the gradient (N, C, H, W) of the cross-entropy with respect to it.

    The loss is summed, so a sample's gradient does not depend on how many others share the batch.
    """
    x = x_NCHW.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = finite(model(x), "logits")
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y_N, reduction="sum"), x)
    return logits.detach(), finite(gradient, "input gradients")


def ascend_linf(
    model: nn.Module, x: Tensor, y: Tensor, *, start: Tensor, eps: float, step_size: float, steps: int
) -> Tensor:
    """Signed gradient ascent on the cross-entropy inside the Linf ball around ``x`` and inside [0, 1].

    A sample leaves as soon as one of its iterates (the start included) is misclassified and keeps that
    iterate; the others keep their last one.

    Returns:
        (N, C, H, W), the kept iterate of each sample.
    """
    low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    kept = start.clone()
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        logits, gradient = loss_gradient(model, kept[active], y[active])
        # An unchanged image passed its clean verdict; another batch's rounding must not end its search.
        unchanged = (kept[active] == x[active]).flatten(1).all(1)
        standing = (logits.argmax(1) == y[active]) | unchanged
        active, gradient = active[standing], gradient[standing]
        if not len(active):
            break
        moved = kept[active] + step_size * gradient.sign()
        kept[active] = torch.clamp(moved, low[active], high[active])
    return kept
