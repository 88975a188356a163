"""Selectivity of units for categories of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.errors import GateError
from tdsnn.metrics._base import MIN_ACTIVE, Figure
from tdsnn.metrics._decoding import check_decodable
from tdsnn.metrics._factors import in_chunks, levels_of
from tdsnn.metrics._figures import Floats
from tdsnn.topography.responses import Responses

FLAT = 0.1
"""Smallest mean difference in t between random units; noise alone gives 1.13 between independent ones."""
SELECTIVE = 4.0
"""t above which a unit counts as selective when the overlap of categories is measured (TDANN)."""


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """How selective the units of a layer are for each of C categories.

    Args:
        categories: names.
        shows: (C, S) float64 of 0 and 1, the category of each image.
        t: (C, U); 0 for units that do not respond.
        responding: (U,) bool, units whose response varies over the images.
        accuracy: of the readout of the category from the layer.
        chance: of that accuracy.
    """

    categories: tuple[str, ...]
    shows: Tensor
    t: Floats
    responding: NDArray[np.bool_]
    accuracy: Figure
    chance: float


def t_values(rates_SU: Tensor, shows_CS: Tensor, counts_BS: Tensor) -> Tensor:
    """(B, C, U) float64: t of every category against all others, for B ways of counting the images.

    t = (m_on - m_off) / sqrt(s2_on / n_on + s2_off / n_off) with population variances, and 0 where the
    denominator is (TDANN, Margalit et al. 2024).

    Args:
        shows_CS: 0 or 1, each image shows exactly one category.
        counts_BS: how often each image counts; ones for all images, or the draws of a bootstrap.
    """
    on = counts_BS[:, None] * shows_CS[None]
    n_on = on.sum(2, keepdim=True)
    n_off = n_on.sum(1, keepdim=True) - n_on
    return torch.cat([_t_of_some(part, on, n_on, n_off) for part in in_chunks(rates_SU)], dim=2)


@lru_cache(maxsize=1)
def selectivity(responses: Responses, *, seed: int) -> Selectivity:
    """t-values of a layer from which the category can be read out.

    The last answer is kept, because several metrics ask in turn for the same layer.

    Raises:
        GateError: it cannot, few units respond, or all units are equally selective.
    """
    levels, shows = levels_of(responses.stimuli, "category")
    categories = tuple(str(level) for level in levels)
    if len(categories) < 2:
        raise GateError(f"The images shown to '{responses.layer}' are of one category only.")
    accuracy, chance = check_decodable(responses.rates, shows, layer=responses.layer, seed=seed)
    once = torch.ones(1, len(responses.rates), dtype=torch.float64)
    t = t_values(responses.rates, shows, once)[0].numpy()
    responding = (responses.rates.amax(0) > responses.rates.amin(0)).numpy()
    if responding.sum() < MIN_ACTIVE:
        raise GateError(f"Only {responding.sum()} units of '{responses.layer}' respond.")
    some = t[:, responding]
    other = np.random.default_rng(seed).permutation(some, axis=1)
    for category, difference in zip(categories, np.abs(some - other).mean(1), strict=True):
        if difference < FLAT:
            raise GateError(
                f"All units of '{responses.layer}' are equally selective for {category} (they differ by "
                f"{difference:.2g} in t), so there is no map to measure."
            )
    return Selectivity(
        categories=categories, shows=shows, t=t, responding=responding, accuracy=accuracy, chance=chance
    )


def shuffled_places(units: int, *, count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """``count`` random permutations of units."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield generator.permutation(units)


def _t_of_some(part_SU: Tensor, on_BCS: Tensor, n_on: Tensor, n_off: Tensor) -> Tensor:
    # Centred, so that the difference of squares below keeps its digits.
    part_SU -= part_SU.mean(0)
    rows, shape = on_BCS.flatten(0, 1), (*on_BCS.shape[:2], -1)
    sums, squares = (rows @ part_SU).view(shape), (rows @ part_SU.square()).view(shape)
    rest, rest_squares = sums.sum(1, keepdim=True) - sums, squares.sum(1, keepdim=True) - squares
    mean_on, mean_off = sums / n_on, rest / n_off
    variance_on = (squares / n_on - mean_on.square()).clamp_min(0)
    variance_off = (rest_squares / n_off - mean_off.square()).clamp_min(0)
    error = variance_on / n_on + variance_off / n_off
    rounding = 1e-12 * (squares / n_on.square() + rest_squares / n_off.square())
    t: Tensor = (mean_on - mean_off) / torch.where(error > rounding, error, torch.inf).sqrt()
    return t
