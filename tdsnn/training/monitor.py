"""How the network does on held-out images, after each epoch and at the end."""

from __future__ import annotations

import torch

from tdsnn.data._base import Split
from tdsnn.evaluation import clean, evaluate
from tdsnn.models._base import Model
from tdsnn.schema import Recipe
from tdsnn.tasks._base import TASKS
from tdsnn.training.adversarial import withstands

ATTACKED = 512
"""Held-out images that are attacked; of an accuracy that is a standard error of 2 points at most."""


def held_out_scores(
    model: Model, held_out: Split, recipe: Recipe, *, device: torch.device
) -> dict[str, float]:
    """Mean score of the split's task as ``held_out_accuracy``, of a classifier a fraction; of a recipe with
    adversarial training also that of the first images under attack, ``held_out_robust_accuracy``."""
    task = TASKS.load(held_out.task)
    scores = evaluate(clean(model, task), held_out, device=device)
    found = {"held_out_accuracy": float(scores.sum() / scores.size)}
    if recipe.adversarial:
        judge = withstands(model, recipe.adversarial, task=task, seed=recipe.seed)
        rows = range(min(ATTACKED, len(held_out.labels)))
        scores = evaluate(judge, held_out, device=device, rows=rows)
        found["held_out_robust_accuracy"] = float(scores.sum() / scores.size)
    return found
