"""Adversarial training: the network learns from images that were attacked just before.

Every loss of a step, the spatial one too, is of the attacked batch alone: that is the outer minimisation of
Madry et al. (2018, arXiv:1706.06083), and one forward pass gives all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tdsnn.attacks._base import configure
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import BALLS
from tdsnn.data._base import Split
from tdsnn.models._base import Model
from tdsnn.runtime import deterministic
from tdsnn.schema import Adversarial, Recipe
from tdsnn.tasks._base import TASKS, Task
from tdsnn.training.objective import answer, diverged

MONITORED = 512
"""Held-out images that are attacked after each epoch; that is a standard error of 2 points at most."""
_BATCH = 128


class Adversary:
    """Attacks training batches by ascent on the task's loss, through the network's own surrogate gradient.

    The batch is answered as in the step that follows: in training mode, with the statistics of the batch and
    in the recipe's precision, so that the attack is on the very function whose gradient is taken next. Wong
    et al. (2020, arXiv:2001.03994) do so too, but there each pass moves the running statistics; here only
    that of the batch that is learned from does. No sample leaves early: what fools the network moves on.

    Args:
        settings: ball and steps.
        task: its loss is raised, without label smoothing.
        recipe: of the run; its seed fixes all starts.
    """

    def __init__(self, settings: Adversarial, *, task: Task, recipe: Recipe) -> None:
        self._eps, self._settings, self._task, self._recipe = settings.eps_255 / 255, settings, task, recipe

    def perturb(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, indices: Tensor, epoch: int, step: int
    ) -> Tensor:
        """Attacked images (N, C, H, W) in [0, 1] and within eps of ``images``.

        Args:
            model: in training mode; its parameters, buffers and gradients are left as they are.
            images: (N, C, H, W) in [0, 1].
            labels: (N,).
            indices: (N,) of each image in the split; with the epoch they fix its start.

        Raises:
            GateError: an input gradient is not finite.
        """
        ball = BALLS[self._settings.norm]
        draws = SampleDraws(seed=self._recipe.seed, stream=f"training/{epoch}", indices=indices.numpy())
        x = ball.project(images + self._eps * ball.draw(draws, images), images, self._eps)
        with _buffers_kept(model):
            for _ in range(self._settings.steps):
                gradient = self._gradient(model, x, labels)
                if not gradient.isfinite().all():
                    raise diverged("input gradient", epoch=epoch, step=step)
                moved = x + self._settings.step_fraction * self._eps * ball.steepest(gradient)
                x = ball.project(moved, images, self._eps)
        return x

    def _gradient(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        x = images.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = self._task.loss(answer(model, x, self._recipe.precision), labels).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        return gradient


def robust_accuracy(
    model: Model, split: Split, settings: Adversarial, *, seed: int, device: torch.device
) -> float:
    """Mean score of a split's first images under PGD-10 in the ball that is trained on; the mode is kept.

    A network may learn to withstand single steps only, which Wong et al. (2020) call catastrophic
    overfitting; ten steps show that.
    """
    attack, task = configure("pgd", steps=10), TASKS.load(split.task)
    count, total = min(MONITORED, len(split.labels)), 0.0
    with deterministic():
        for start in range(0, count, _BATCH):
            chosen = range(start, min(start + _BATCH, count))
            images, labels = split.take(slice(chosen.start, chosen.stop))
            found = attack.perturb(
                model,
                images.to(device).contiguous(memory_format=torch.channels_last),
                labels.to(device),
                eps=settings.eps_255 / 255,
                indices=chosen,
                seed=seed,
                norm=settings.norm,
                task=task,
            )
            total += float(found.robust.sum())
    return total / count


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Running statistics, and whatever else a pass in training mode moves, are as found after the block."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, kept in before:
            buffer.copy_(kept)
