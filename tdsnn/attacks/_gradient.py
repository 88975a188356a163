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
    _refuse(int((~torch.isfinite(values)).sum()), f"of {values.numel()} {what}")
    return values


def _refuse(bad: int, what: str) -> None:
    if bad:
        raise GateError(
            f"{bad} {what} are not finite, so no verdict can be given.",
            hint="Check the checkpoint: tdsnn-zoo info NAME",
        )


Check = Callable[[Tensor, str], Tensor]
"""As :func:`finite`, which is the one that looks at once."""


class Finiteness:
    """Whether all that a search met was finite. On a GPU each look is a wait, so there one look is enough."""

    def __init__(self) -> None:
        self._bad: dict[str, Tensor] = {}

    def note(self, values: Tensor, what: str) -> Tensor:
        """As :func:`finite`, but values of a GPU are looked at by :meth:`confirm`."""
        if not values.is_cuda:
            return finite(values, what)
        bad = (~torch.isfinite(values)).sum()
        self._bad[what] = self._bad[what] + bad if what in self._bad else bad
        return values

    def confirm(self) -> None:
        """Before a verdict is given.

        Raises:
            GateError: as :func:`finite`.
        """
        if self._bad:
            counts = torch.stack(tuple(self._bad.values())).tolist()
            for what, bad in zip(self._bad, counts, strict=True):
                _refuse(bad, what)


def respond(model: nn.Module, x_NCHW: Tensor, *, check: Check = finite) -> Tensor:
    """Outputs (N, K) of the model without autograd, all finite."""
    with torch.no_grad():
        return check(model(x_NCHW), "logits")


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


def loss_gradient(
    model: nn.Module, x_NCHW: Tensor, targets: Tensor, loss: Loss, *, check: Check = finite
) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) at ``x_NCHW`` and the gradient (N, C, H, W) of the loss with respect to it.

    The loss is summed, so a sample's gradient does not depend on how many others share the batch.
    """
    x = x_NCHW.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = check(model(x), "logits")
        (gradient,) = torch.autograd.grad(loss(outputs, targets).sum(), x)
    return outputs.detach(), check(gradient, "input gradients")
