"""Factors of a stimulus set, and sums of responses over images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from tdsnn.errors import UsageError
from tdsnn.topography.responses import StimulusSet

_CHUNK = 2048
"""Units that are held in float64 at a time."""


def levels_of(stimuli: StimulusSet, factor: str) -> tuple[tuple[str | float, ...], Tensor]:
    """Levels of a factor, and which of L levels each of S images shows, (L, S) float64 of 0 and 1.

    Raises:
        UsageError: there is no such factor, or no image of one of its levels.
    """
    if factor not in stimuli.factors or factor not in stimuli.levels:
        known = ", ".join(stimuli.factors) or "none"
        raise UsageError(f"The stimuli '{stimuli.name}' have no factor '{factor}'; they have: {known}.")
    levels = stimuli.levels[factor]
    shows = one_hot(stimuli.factors[factor], len(levels)).T.double()
    for level, count in zip(levels, shows.sum(1).tolist(), strict=True):
        if not count:
            raise UsageError(f"No image of '{stimuli.name}' shows {factor} {level}.")
    return levels, shows


def in_chunks(rates_SU: Tensor) -> Iterator[Tensor]:
    """Copies of the responses in float64, some units at a time: a copy of all would fill the memory."""
    for part in torch.split(rates_SU, _CHUNK, dim=1):
        yield part.to(torch.float64, copy=True)


def level_means(rates_SU: Tensor, shows_LS: Tensor) -> Tensor:
    """(L, U) float64, mean response of each unit to the images of each level."""
    weights = shows_LS / shows_LS.sum(1, keepdim=True)
    return torch.cat([weights @ part for part in in_chunks(rates_SU)], dim=1)
