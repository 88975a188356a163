"""Square attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks._base import Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import respond
from tdsnn.attacks._losses import margin
from tdsnn.tasks._base import Task

__all__ = ["Square"]

_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations after which the share of changed pixels is halved."""
_BLOCK = 500
"""Queries whose random numbers are drawn at once."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search with squares, without gradients (Andriushchenko et al., 2020, arXiv:1912.00049).

    The search begins with vertical stripes of full strength. Each query moves a random square by 2 eps up or
    down in each channel, inside the ball, and keeps it where the margin between the highest other logit and
    that of the true class grows. The side of squares is that of a share ``p`` of the image, halved after 10,
    50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 queries, however many there are.
    """

    queries: Annotated[int, Meta(ge=1, le=1_000_000)] = 5000
    """Forward passes of a sample that stands until the end."""
    p: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Share of the pixels that the first squares cover."""

    def objection(self, model: nn.Module, task: Task) -> str | None:
        if not task.chooses_class:
            return f"The attack {self.name} needs logits of classes, which this task does not have."
        return super().objection(model, task)

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: float,
        norm: str | None,
        task: Task,
        generator: SampleDraws,
    ) -> Tensor:
        """Search until misclassified or out of queries; see :meth:`Attack.run`."""
        found = torch.clamp(x + eps * _signs(generator.uniform(x[:, :, :1])), 0, 1)
        outputs = respond(model, found)
        highest = margin(outputs, y)
        active = (task.score(outputs, y) > task.floor).nonzero().squeeze(1)
        draws = x.new_empty(0)
        for iteration in range(self.queries - 1):
            if not len(active):
                break
            if iteration % _BLOCK == 0:
                # Drawn for all, so that a sample's squares do not depend on which others still stand.
                draws = generator.uniform(x.new_empty(len(x), _BLOCK, 2 + x.shape[1]))
            change = eps * self._square(x, iteration, draws[active, iteration % _BLOCK])
            near, kept = x[active], found[active]
            candidates = torch.clamp(torch.clamp(kept + change, near - eps, near + eps), 0, 1)
            outputs = respond(model, candidates)
            fallen = task.score(outputs, y[active]) <= task.floor
            margins = margin(outputs, y[active])
            better = fallen | (margins > highest[active])
            found[active[better]], highest[active[better]] = candidates[better], margins[better]
            active = active[~fallen]
        return found

    def _square(self, x: Tensor, iteration: int, draws: Tensor) -> Tensor:
        """Changes (N, C, H, W) in units of eps: a square of 2 or -2 in each channel, of draws (N, 2 + C)."""
        height, width = x.shape[2:]
        share = self.p / 2 ** sum(iteration > limit for limit in _HALVED_AFTER)
        side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
        top, left = (_places(draws[:, axis], size - side + 1) for axis, size in enumerate((height, width)))
        rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
        inside = _within(rows, top, side)[:, :, None] & _within(columns, left, side)[:, None, :]
        return 2 * _signs(draws[:, 2:, None, None]) * inside[:, None]


def _signs(uniform: Tensor) -> Tensor:
    """Numbers in [-1, 1) as -1 or 1."""
    return torch.where(uniform < 0, -1.0, 1.0)


def _places(uniform: Tensor, count: int) -> Tensor:
    """Numbers in [-1, 1) as whole ones from 0 to ``count`` - 1."""
    return ((uniform + 1) / 2 * count).long().clamp(max=count - 1)


def _within(places: Tensor, first: Tensor, side: int) -> Tensor:
    """(N, places) bool: which lie in ``side`` places from ``first`` (N,) on."""
    return (places >= first[:, None]) & (places < first[:, None] + side)
