"""Forward and backward passes of one step, whose gradients add up to that of its batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tdsnn.models._base import Model
from tdsnn.runtime import Fetched
from tdsnn.schema import Recipe
from tdsnn.tasks._base import Task
from tdsnn.training.adversarial import Adversary
from tdsnn.training.objective import Objective

LOSS = "sum of all terms"
"""What is lowered, among what the log is told."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Images of a step that go through the network together."""

    images: Tensor
    """(N, C, H, W) in [0, 1]."""
    targets: Tensor
    """(N,), or the shares (N, K) of classes."""
    rows: Tensor
    """(N,) of each image in the split."""
    epoch: int
    step: int
    fraction: float
    """Of the epoch that is done."""

    def split(self, count: int) -> list[Chunk]:
        """Equal parts."""
        parts = (whole.chunk(count) for whole in (self.images, self.targets, self.rows))
        return [
            replace(self, images=images, targets=targets, rows=rows)
            for images, targets, rows in zip(*parts, strict=True)
        ]


class Passes:
    """Computes the gradients of a step, in as many passes as the recipe says.

    Without statistics of a batch the gradient is that of one pass up to rounding. Batch normalisation, STC
    and TDANN see one pass at a time: then STC's correlations are over fewer images, in the same clusters, and
    its loss is the mean over the passes.

    Args:
        model: what learns; ``wrapped`` is it with what the accelerator put around it.
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: Objective,
        *,
        task: Task,
        model: Model,
        wrapped: nn.Module,
        accelerator: Accelerator,
    ) -> None:
        self._count, self._objective, self._accelerator = recipe.accumulate or 1, objective, accelerator
        self._model, self._wrapped = model, wrapped
        self._adversary: Adversary | None = None
        if recipe.adversarial:
            self._adversary = Adversary(recipe.adversarial, task=task, recipe=recipe)

    def attacked(self, chunk: Chunk) -> Tensor:
        """Images as the network is to see them."""
        if self._adversary is None:
            return chunk.images
        return self._adversary.perturb(
            self._model,
            chunk.images,
            chunk.targets,
            indices=chunk.rows,
            epoch=chunk.epoch,
            step=chunk.step,
        )

    def __call__(self, whole: Chunk, *, with_shares: bool) -> tuple[dict[str, float], dict[str, float]]:
        """Add up the gradients of a process's share of a batch.

        Returns:
            What the log is told and the loss, under :data:`LOSS`; and the shares of the gradient of the first
            pass, if they were asked for.
        """
        parts: dict[str, float] = {}
        shares: dict[str, float] = {}
        for number, chunk in enumerate(whole.split(self._count), start=1):
            last = number == self._count
            # Processes exchange gradients once, when they are complete.
            with nullcontext() if last else self._accelerator.no_sync(self._wrapped):
                found, of_terms = self._one(chunk, with_shares=with_shares and number == 1)
            shares |= of_terms or {}
            for key, value in found.items():
                parts[key] = parts.get(key, 0.0) + value / self._count
        return parts, shares

    def _one(self, chunk: Chunk, *, with_shares: bool) -> tuple[dict[str, float], dict[str, float] | None]:
        losses = self._objective(
            self._wrapped,
            self.attacked(chunk),
            chunk.targets,
            epoch=chunk.epoch,
            step=chunk.step,
            fraction=chunk.fraction,
            with_shares=with_shares,
        )
        parts = {LOSS: losses.total, **losses.parts}
        fetched = Fetched(torch.stack(tuple(parts.values())))
        # Dividing by one would be two kernels for nothing.
        self._accelerator.backward(losses.total if self._count == 1 else losses.total / self._count)
        # The one wait of a pass: a GPU has the backward pass to do meanwhile.
        return dict(zip(parts, fetched.read(), strict=True)), losses.shares
