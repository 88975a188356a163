"""A network before training."""

from __future__ import annotations

import torch

from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS
from tdsnn.schema import Manifest
from tdsnn.topography.preparation import fresh_sheets


def fresh_model(manifest: Manifest, *, image_size: tuple[int, ...]) -> Model:
    """A model with weights drawn from the recipe's seed, on sheets drawn from the topography's.

    Args:
        image_size: (H, W).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(manifest.recipe.seed)
        model = MODELS.load(manifest.architecture)(**manifest.arguments)
    height, width = image_size
    model.sheets = fresh_sheets(
        model,
        model.sheet_specs.values(),
        manifest.topography,
        image_shape=(model.in_channels, height, width),
    )
    return model
