"""Adversarial training: the network learns from images that were attacked just before.

Every loss of a step, the spatial one too, is of the attacked batch alone: that is the outer minimisation of
Madry et al. (2018, arXiv:1706.06083), and one forward pass gives all of them. The statistics that are settled
at the end are of attacked batches too: with those of clean ones a trial (sresnet18 at width 8, 12,800 images,
two epochs at 8/255) got 80.6 % of 1,000 held-out images right instead of 81.3 %, and under PGD-10 64.1 % of
256 instead of 68.4 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.attacks._balls import BALLS
from tdsnn.attacks._base import configure
from tdsnn.attacks._draws import SampleDraws
from tdsnn.evaluation import Judge
from tdsnn.schema import Adversarial, Recipe
from tdsnn.tasks._base import Task
from tdsnn.training.objective import answer, diverged


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
        self, model: nn.Module, images: Tensor, targets: Tensor, *, indices: Tensor, epoch: int, step: int
    ) -> Tensor:
        """Attacked images (N, C, H, W) in [0, 1] and within eps of ``images``.

        Args:
            model: in training mode; its parameters, buffers and gradients are left as they are.
            images: (N, C, H, W) in [0, 1].
            targets: (N,).
            indices: (N,) of each image in the split; with the epoch they fix its start.

        Raises:
            GateError: an input gradient is not finite.
        """
        ball = BALLS[self._settings.norm]
        draws = SampleDraws(seed=self._recipe.seed, stream=f"training/{epoch}", indices=indices.numpy())
        x = ball.project(images + self._eps * ball.draw(draws, images), images, self._eps)
        finite: Tensor | bool = True
        with _buffers_kept(model):
            for _ in range(self._settings.steps):
                gradient = self._gradient(model, x, targets)
                finite = gradient.isfinite().all() & finite
                moved = x + self._settings.step_fraction * self._eps * ball.steepest(
                    gradient.nan_to_num(0.0, 0.0, 0.0)
                )
                x = ball.project(moved, images, self._eps)
        # Once, because on a GPU each look is a wait.
        if not finite:
            raise diverged("input gradient", epoch=epoch, step=step)
        return x

    def _gradient(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        x = images.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = self._task.loss(answer(model, x, self._recipe.precision), targets).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        return gradient


def withstands(model: nn.Module, settings: Adversarial, *, task: Task, seed: int) -> Judge:
    """Scores under PGD-10 in the ball that is trained on, for :func:`tdsnn.evaluation.evaluate`.

    A network may learn to withstand single steps only, which Wong et al. (2020) call catastrophic
    overfitting; ten steps show that.
    """
    attack = configure("pgd", steps=10)

    def judge(rows: NDArray[np.int64], x: Tensor, y: Tensor) -> Tensor:
        eps, norm = settings.eps_255 / 255, settings.norm
        return attack.perturb(model, x, y, eps=eps, indices=rows, seed=seed, norm=norm, task=task).robust

    return judge


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Running statistics, and whatever else a pass in training mode moves, are as found after the block."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, kept in before:
            buffer.copy_(kept)
