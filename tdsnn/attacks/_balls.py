"""Balls that gradient attacks move in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tdsnn.attacks._draws import SampleDraws


@dataclass(frozen=True, kw_only=True)
class Ball:
    """A ball of one norm around images ``x`` (N, C, H, W), inside [0, 1]."""

    steepest: Callable[[Tensor], Tensor]
    """Direction of length 1 in which the loss rises fastest, of a gradient (N, C, H, W); 0 without one."""
    project: Callable[[Tensor, Tensor, float], Tensor]
    """``project(moved, x, eps)``: into the ball and [0, 1]."""
    draw: Callable[[SampleDraws, Tensor], Tensor]
    """Uniform point (N, C, H, W) of the ball of radius 1 around 0."""
    draw_edge: Callable[[SampleDraws, Tensor], Tensor]
    """Point of length 1, in a random direction."""


def _clip(moved: Tensor, x: Tensor, eps: float) -> Tensor:
    return torch.clamp(moved, (x - eps).clamp_(min=0), (x + eps).clamp_(max=1))


def _shrink(moved: Tensor, x: Tensor, eps: float) -> Tensor:
    # Clipping to [0, 1] moves every pixel towards its own in x, so the point stays in the ball.
    return torch.clamp(x + (moved - x) * (eps / _lengths(moved - x)).clamp(max=1), 0, 1)


def _lengths(values: Tensor) -> Tensor:
    """L2 lengths (N, 1, 1, 1), never 0, so that one can divide by them."""
    lengths: Tensor = values.flatten(1).norm(dim=1)
    return lengths.clamp(min=torch.finfo(values.dtype).tiny).view(-1, 1, 1, 1)


def _normalised(gradient: Tensor) -> Tensor:
    # Surrogates give gradients whose squares are no float32; a power of two changes no digit.
    _, exponent = torch.frexp(gradient.abs().amax((1, 2, 3), keepdim=True))
    scaled = torch.ldexp(gradient, -exponent)
    return scaled / _lengths(scaled)


def _on_cube(draws: SampleDraws, like: Tensor) -> Tensor:
    inside = draws.uniform(like)
    return inside / inside.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(like.dtype).tiny)


def _on_sphere(draws: SampleDraws, like: Tensor) -> Tensor:
    direction = draws.normal(like)
    return direction / _lengths(direction)


def _in_sphere(draws: SampleDraws, like: Tensor) -> Tensor:
    """A normal draw gives the direction, and a share u of the ball lies within the radius u^(1 / D)."""
    direction = _on_sphere(draws, like)
    share = (draws.uniform(like[:, :1, :1, :1]) + 1) / 2
    return direction * share.pow(1 / like[0].numel())


BALLS = {
    "linf": Ball(
        steepest=torch.sign,
        project=_clip,
        draw=lambda draws, like: draws.uniform(like),
        draw_edge=_on_cube,
    ),
    "l2": Ball(
        steepest=_normalised,
        project=_shrink,
        draw=_in_sphere,
        draw_edge=_on_sphere,
    ),
}
"""The norms in which gradient attacks can ascend."""
