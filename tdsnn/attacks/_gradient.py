"""Models under attack: their answers, and the gradient of a loss at their input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tdsnn.errors import GateError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (N, K) and targets (N, ...): losses (N,), differentiable."""


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


def respond(model: nn.Module, x_NCHW: Tensor) -> Tensor:
    """Outputs (N, K) of the model without autograd, all finite."""
    with torch.no_grad():
        return finite(model(x_NCHW), "logits")


def over_time(model: nn.Module, frames_TNCHW: Tensor) -> Tensor:
    """Outputs (N, K) without autograd, the mean over time, for an image of its own at each time step.

    Raises:
        GateError: the model has no method ``outputs_of_frames``, or unrolls its time steps itself.
    """
    shown = getattr(model, "outputs_of_frames", None)
    if shown is None:
        raise GateError(
            f"{type(model).__name__} cannot be shown another image at each time step.",
            hint="Draw the noise once: leave out draw=per-step.",
        )
    with torch.no_grad():
        outputs: Tensor = shown(frames_TNCHW)
        return finite(outputs.mean(0), "logits")


def loss_gradient(model: nn.Module, x_NCHW: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) at ``x_NCHW`` and the gradient (N, C, H, W) of the loss with respect to it.

    The loss is summed, so a sample's gradient does not depend on how many others share the batch.
    """
    x = x_NCHW.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = finite(model(x), "logits")
        (gradient,) = torch.autograd.grad(loss(outputs, targets).sum(), x)
    return outputs.detach(), finite(gradient, "input gradients")
