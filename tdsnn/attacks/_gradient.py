"""Shared parts of gradient attacks: the input gradient, and ascent inside a ball."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdsnn.attacks._draws import SampleDraws
from tdsnn.errors import GateError
from tdsnn.tasks._base import Task


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


def loss_gradient(model: nn.Module, x_NCHW: Tensor, y_N: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Outputs (N, K) at ``x_NCHW`` and the gradient (N, C, H, W) of the task's loss with respect to it.

    The loss is summed, so a sample's gradient does not depend on how many others share the batch.
    """
    x = x_NCHW.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = finite(model(x), "logits")
        (gradient,) = torch.autograd.grad(task.loss(outputs, y_N).sum(), x)
    return outputs.detach(), finite(gradient, "input gradients")


@dataclass(frozen=True, kw_only=True)
class Ball:
    """Ascent inside a ball of one norm around images ``x`` (N, C, H, W), which stays inside [0, 1]."""

    steepest: Callable[[Tensor], Tensor]
    """Direction of length 1 in which the loss rises fastest, of a gradient (N, C, H, W); 0 without one."""
    project: Callable[[Tensor, Tensor, float], Tensor]
    """``project(moved, x, eps)``: into the ball and [0, 1]."""
    draw: Callable[[SampleDraws, Tensor], Tensor]
    """Uniform point (N, C, H, W) of the ball of radius 1 around 0."""

    def ascend(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        task: Task,
        start: Tensor,
        eps: float,
        step_size: float,
        steps: int,
    ) -> Tensor:
        """Ascent on the task's loss; every step has the length ``step_size``.

        A sample leaves as soon as one of its iterates (the start included) has the lowest score and keeps
        that iterate; the others keep their last one.

        Returns:
            (N, C, H, W), the kept iterate of each sample.
        """
        kept = start.clone()
        active = torch.arange(len(x), device=x.device)
        for _ in range(steps):
            outputs, gradient = loss_gradient(model, kept[active], y[active], task)
            # An unchanged image passed its clean verdict; another batch's rounding must not end its search.
            unchanged = (kept[active] == x[active]).flatten(1).all(1)
            standing = (task.score(outputs, y[active]) > task.floor) | unchanged
            active, gradient = active[standing], gradient[standing]
            if not len(active):
                break
            kept[active] = self.project(kept[active] + step_size * self.steepest(gradient), x[active], eps)
        return kept


def _clip(moved: Tensor, x: Tensor, eps: float) -> Tensor:
    return torch.clamp(moved, (x - eps).clamp_(min=0), (x + eps).clamp_(max=1))


def _shrink(moved: Tensor, x: Tensor, eps: float) -> Tensor:
    # Clipping to [0, 1] moves every pixel towards its own in x, so the point stays in the ball.
    return torch.clamp(x + (moved - x) * (eps / _lengths(moved - x)).clamp(max=1), 0, 1)


def _lengths(values: Tensor) -> Tensor:
    """L2 lengths (N, 1, 1, 1), never 0, so that one can divide by them."""
    lengths: Tensor = values.flatten(1).norm(dim=1)
    return lengths.clamp(min=torch.finfo(values.dtype).tiny).view(-1, 1, 1, 1)


def _in_sphere(draws: SampleDraws, like: Tensor) -> Tensor:
    """A normal draw gives the direction, and a share u of the ball lies within the radius u^(1 / D)."""
    direction = draws.normal(like)
    share = (draws.uniform(like[:, :1, :1, :1]) + 1) / 2
    return direction / _lengths(direction) * share.pow(1 / like[0].numel())


BALLS = {
    "linf": Ball(steepest=torch.sign, project=_clip, draw=lambda draws, like: draws.uniform(like)),
    "l2": Ball(steepest=lambda gradient: gradient / _lengths(gradient), project=_shrink, draw=_in_sphere),
}
"""The norms in which gradient attacks can ascend."""
