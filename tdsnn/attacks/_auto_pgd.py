"""The search of APGD: gradient ascent with momentum that halves its step where it stops gaining.

Croce and Hein, 2020, arXiv:2003.01690, algorithm 1, with the constants given there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tdsnn.attacks._balls import BALLS, Ball
from tdsnn.attacks._gradient import respond
from tdsnn.attacks._objective import Objective

FIRST_STEP = 2.0
"""In units of eps."""
MOMENTUM = 0.25
_FIRST, _SHRINK, _SHORTEST = 0.22, 0.03, 0.06
"""The first period between checkpoints, by how much each is shorter than the one before, and the shortest, as
shares of all steps."""


def checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """Steps after which step sizes are looked at, from 1 on, and the length of the period that ends there."""
    period, step = max(int(_FIRST * steps), 1), 0
    shrink, shortest = max(int(_SHRINK * steps), 1), max(int(_SHORTEST * steps), 1)
    while (step := step + period) <= steps:
        yield step, period
        period = max(period - shrink, shortest)


@dataclass
class _Samples:
    """What is known about each sample that still stands; all (N, ...)."""

    place: Tensor
    """In the batch that the search was given."""
    point: Tensor
    previous: Tensor
    gradient: Tensor
    """At ``point``."""
    loss: Tensor
    """Of the last evaluation."""
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step: Tensor
    """Step size, (N, 1, 1, 1)."""
    rises: Tensor
    """Steps of this period that raised the loss."""
    halved: Tensor
    """Whether the step was halved at the last checkpoint."""
    checked_loss: Tensor
    """``best_loss`` at the last checkpoint."""

    def at(self, places: Tensor) -> _Samples:
        return _Samples(**{one.name: getattr(self, one.name)[places] for one in fields(self)})

    def take(self, gradient: Tensor, loss: Tensor) -> None:
        """Note gradient and loss at ``point``."""
        self.rises += loss > self.loss
        self.gradient, self.loss = gradient, loss
        higher = loss > self.best_loss
        per_image = higher.view(-1, 1, 1, 1)
        self.best = torch.where(per_image, self.point, self.best)
        self.best_gradient = torch.where(per_image, gradient, self.best_gradient)
        self.best_loss = torch.where(higher, loss, self.best_loss)

    def check(self, period: int, *, share: float) -> None:
        """At a checkpoint: halve the step and return to the best point where the period gained too little."""
        stalled = ~self.halved & (self.checked_loss >= self.best_loss)
        self.halved = (self.rises <= share * period) | stalled
        self.checked_loss = self.best_loss.clone()
        self.rises = torch.zeros_like(self.rises)
        self.step[self.halved] /= 2
        self.point[self.halved] = self.best[self.halved]
        self.gradient[self.halved] = self.best_gradient[self.halved]

    def move(self, x: Tensor, ball: Ball, eps: float, *, momentum: float) -> None:
        """One step from ``point`` within the ball around ``x``; a share of it is the step before."""
        ahead = ball.project(self.point + self.step * ball.steepest(self.gradient), x, eps)
        moved = self.point + (1 - momentum) * (ahead - self.point) + momentum * (self.point - self.previous)
        self.previous, self.point = self.point, ball.project(moved, x, eps)


def climb(objective: Objective, start: Tensor, *, eps: float, norm: str, steps: int, share: float) -> Tensor:
    """The first point (N, C, H, W) where a sample falls, or that of the highest loss.

    Args:
        start: (N, C, H, W).
        steps: gradient evaluations of each sample; one more pass judges the last points.
        share: of the steps of a period that must raise the loss; rho.
    """
    kept, due, ball = start.clone(), dict(checkpoints(steps)), BALLS[norm]
    samples = _begin(start, FIRST_STEP * eps)
    for step in range(steps):
        outputs, gradient = objective.gradient(samples.point)
        loss = objective.losses(outputs)
        standing = objective.go_on(samples.point, outputs)
        if len(standing) < len(samples.place):
            kept[samples.place] = samples.point
            samples, gradient, loss = samples.at(standing), gradient[standing], loss[standing]
        if not len(standing):
            return kept
        samples.take(gradient, loss)
        if step in due:
            samples.check(due[step], share=share)
        samples.move(objective.x, ball, eps, momentum=MOMENTUM if step else 0.0)
    outputs = respond(objective.model, samples.point)
    last = ~objective.standing(samples.point, outputs) | (objective.losses(outputs) > samples.best_loss)
    kept[samples.place] = torch.where(last.view(-1, 1, 1, 1), samples.point, samples.best)
    return kept


def _begin(start: Tensor, step: float) -> _Samples:
    lowest = start.new_full((len(start),), -torch.inf)
    return _Samples(
        place=torch.arange(len(start), device=start.device),
        point=start.clone(),
        previous=start.clone(),
        gradient=torch.zeros_like(start),
        loss=-lowest,
        best=start.clone(),
        best_gradient=torch.zeros_like(start),
        best_loss=lowest,
        step=torch.full_like(start[:, :1, :1, :1], step),
        rises=torch.zeros_like(lowest),
        halved=torch.ones_like(lowest, dtype=torch.bool),
        checked_loss=lowest.clone(),
    )
