"""Tests of the gradient itself: that it is there, is the same twice, and says where the loss rises."""

from __future__ import annotations

import torch
from torch import Tensor

from tdsnn.attacks._gradient import loss_gradient
from tdsnn.benchmark.masking._base import Finding, Probe, judged, not_made, percent
from tdsnn.errors import GateError
from tdsnn.models._base import Model

MAX_NORMALISED_GAP = 1e-4
"""L2 distance of L2-normalised logits between two forward passes (AutoAttack's check)."""
MAX_ZERO_PIXELS = 0.5
"""Share of pixels whose gradient is exactly zero: there no step ever goes."""
MAX_GRADIENT_GAP = 1e-4
"""Median relative L2 distance between the gradients of two paths through the same network."""
MAX_RELATIVE_CHANGE = 0.1
"""Mean relative change of the loss at random points of the ball; Pintor et al. name no threshold."""
MIN_FIDELITY = 0.1
"""Median over images of the correlation between predicted and true changes of the loss."""


def same_twice(probe: Probe) -> Finding:
    """M1: five forward passes give the same logits."""
    outputs = [probe.outputs(probe.x) for _ in range(5)]
    unit = [one / one.norm(dim=1, keepdim=True).clamp(min=1e-12) for one in outputs]
    gap = max(float((one - unit[0]).norm(dim=1).max()) for one in unit[1:])
    return judged(
        "M1",
        "same logits every time",
        figure=gap,
        limit=MAX_NORMALISED_GAP,
        unit="L2 distance of normalised logits",
        message=f"Five passes over the same images differ by {gap:.1e}.",
    )


def gradient_is_there(probe: Probe) -> Finding:
    """M2: no image without a gradient at a random start, and few pixels without one.

    Looked at are the task's loss and the margin of the true class, since the former may underflow.
    """
    title = "gradient is there"
    start = (probe.x + probe.eps * probe.draws("M2").uniform(probe.x)).clamp(0, 1)
    try:
        _, gradient = loss_gradient(probe.model, start, probe.y, probe.task.loss)
        margin = _margin_gradient(probe, start)
    except (GateError, RuntimeError) as error:
        return Finding(
            test="M2",
            title=title,
            status="fail",
            figure=None,
            limit=None,
            unit="",
            message=f"There is no gradient: {error}",
        )
    blind = sum(int((one.flatten(1) == 0).all(1).sum()) for one in (gradient, margin))
    if blind:
        return judged(
            "M2",
            title,
            figure=blind,
            limit=0,
            unit="images",
            message=f"{blind} of {2 * len(start)} gradients (of loss and margin) are zero in every pixel.",
        )
    zero = float((gradient == 0).double().mean())
    return judged(
        "M2",
        title,
        figure=zero,
        limit=MAX_ZERO_PIXELS,
        unit="share of pixels",
        bad="warn",
        message=f"{percent(zero)} of the pixels have a gradient of exactly zero.",
    )


def _margin_gradient(probe: Probe, start: Tensor) -> Tensor:
    x = start.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = probe.model(x)
        own = outputs.gather(1, probe.y[:, None]).squeeze(1)
        other = outputs.scatter(1, probe.y[:, None], -torch.inf).amax(1)
        (gradient,) = torch.autograd.grad((other - own).sum(), x)
    return gradient


def same_gradient_on_both_paths(probe: Probe) -> Finding:
    """M3: compiled operators and PyTorch's own give the same gradient."""
    title = "same gradient on both paths"
    model = probe.model
    layers = [layer for layer in model.neurons if layer.compiled] if isinstance(model, Model) else []
    if not layers:
        return not_made("M3", title, "The network has one path only: nothing of it is compiled.")
    _, compiled = loss_gradient(model, probe.x, probe.y, probe.task.loss)
    for layer in layers:
        layer.compiled = False
    try:
        _, reference = loss_gradient(model, probe.x, probe.y, probe.task.loss)
    finally:
        for layer in layers:
            layer.compiled = True
    distance = (compiled - reference).flatten(1).norm(dim=1)
    gap = float((distance / reference.flatten(1).norm(dim=1).clamp(min=1e-30)).median())
    return judged(
        "M3",
        title,
        figure=gap,
        limit=MAX_GRADIENT_GAP,
        unit="median relative L2 distance",
        message=f"The gradients of compiled and of PyTorch's operators differ by {gap:.1e}.",
    )


def stable_loss(probe: Probe) -> Finding:
    """M12: the loss at random points of the ball is near that of the image (Pintor et al. 2022)."""
    clean, draws = probe.loss(probe.x), probe.draws("M12")
    changes = []
    for _ in range(min(100, probe.budget.points)):
        moved = (probe.x + probe.eps * draws.uniform(probe.x)).clamp(0, 1)
        change = (probe.loss(moved) - clean).abs() / clean.clamp(min=1e-12)
        changes.append(change.clamp(max=1).mean())
    mean = float(torch.stack(changes).mean())
    return judged(
        "M12",
        "stable loss",
        figure=mean,
        limit=MAX_RELATIVE_CHANGE,
        unit="mean relative change",
        bad="warn",
        message=f"At random points within {probe.radius} the loss changes by {percent(mean)} of itself, at "
        "most 100 % being counted for an image.",
    )


def gradient_is_faithful(probe: Probe) -> Finding:
    """M14: what the gradient predicts along random sign directions is what the loss does.

    Of each image the correlation over directions d between g·d and L(x + hd) - L(x - hd), h = eps / 4.
    """
    _, gradient = loss_gradient(probe.model, probe.x, probe.y, probe.task.loss)
    h, draws = probe.eps / 4, probe.draws("M14")
    predicted, true = [], []
    for _ in range(min(100, probe.budget.points)):
        direction = torch.sign(draws.uniform(probe.x))
        predicted.append((gradient * direction).flatten(1).sum(1))
        true.append(probe.loss(probe.x + h * direction) - probe.loss(probe.x - h * direction))
    correlation = _correlation(torch.stack(predicted).double(), torch.stack(true).double())
    median = float(correlation.median())
    return Finding(
        test="M14",
        title="faithful gradient",
        status="pass" if median >= MIN_FIDELITY else "fail",
        figure=median,
        limit=MIN_FIDELITY,
        unit="median correlation, at least",
        message=f"What the gradient predicts correlates with what the loss does by {median:.2f} in the "
        f"median image, at steps of {255 * h:g}/255.",
    )


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of each column; 0 where one does not vary."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(0) / scale.clamp(min=1e-300), torch.zeros_like(scale))
