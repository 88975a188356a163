"""The stimulus sets that topographic metrics ask for, at the size of a model's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional as F

from tdsnn.data._base import load_split
from tdsnn.data.floc import CATEGORIES
from tdsnn.topography.gratings import gratings
from tdsnn.topography.responses import StimulusSet

Shape = tuple[int, int, int]
"""(C, H, W) of a model's images."""


def floc(shape: Shape) -> StimulusSet:
    """The fLoc images but the scrambled ones, grey, reduced to ``shape`` with an anti-aliasing filter.

    Raises:
        MissingError: the images are not on this machine; says how to get them.
    """
    split = load_split("floc", "train")
    category_of = {part: place for place, parts in enumerate(CATEGORIES.values()) for part in parts}
    subcategories = [name for name in split.classes if name in category_of]
    wanted = [split.classes[label] in category_of for label in split.targets(slice(None))]
    grey, labels = split.take(np.flatnonzero(wanted))
    names = [split.classes[label] for label in labels.tolist()]
    channels, height, width = shape
    reduced = F.interpolate(grey, size=(height, width), mode="bilinear", antialias=True).clamp_(0, 1)
    return StimulusSet(
        name="floc",
        images=reduced.expand(-1, channels, -1, -1),
        factors={
            "category": torch.tensor([category_of[name] for name in names]),
            "subcategory": torch.tensor([subcategories.index(name) for name in names]),
        },
        levels={"category": tuple(CATEGORIES), "subcategory": tuple(subcategories)},
    )


STIMULI: Mapping[str, Callable[[Shape], StimulusSet]] = {"gratings": gratings, "floc": floc}
"""What a metric may name as its ``stimuli``."""
