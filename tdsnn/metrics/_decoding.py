"""Can a category be read out of a layer at all?"""

from __future__ import annotations

import torch
from torch import Tensor

from tdsnn.errors import GateError
from tdsnn.metrics._base import Figure
from tdsnn.metrics._factors import in_chunks
from tdsnn.stats import wilson

FOLDS = 5


def check_decodable(rates_SU: Tensor, shows_CS: Tensor, *, layer: str, seed: int) -> tuple[Figure, float]:
    """Accuracy of a readout with its 95 % Wilson interval over images, and chance.

    Chance is the share of the largest category.

    Raises:
        GateError: the interval reaches down to chance, or a category has fewer images than there are folds.
    """
    least = int(shows_CS.sum(1).min())
    if least < FOLDS:
        raise GateError(f"A readout of '{layer}' needs {FOLDS} images of each category; one has {least}.")
    labels = shows_CS.argmax(0)
    right = int((decode(rates_SU, shows_CS, seed=seed) == labels).sum())
    total = len(labels)
    interval = wilson(right, total)
    chance = float(shows_CS.sum(1).max()) / total
    if interval.low <= chance:
        raise GateError(
            f"Categories cannot be read out of '{layer}': {right / total:.1%} of {total} images are decoded "
            f"correctly, {chance:.1%} by chance.",
            hint="Maps of selectivity would show noise; this model may not recognise reduced images.",
        )
    return Figure(value=right / total, low=interval.low, high=interval.high, unit="", n=total), chance


def decode(rates_SU: Tensor, shows_CS: Tensor, *, seed: int) -> Tensor:
    """(S,) category of each image by the nearest class mean of the other four fifths of the images.

    The squared distance is summed over units in multiples of each unit's variance over those images; units
    that do not vary there do not count. The five folds hold equal shares of each category.
    """
    labels = shows_CS.argmax(0)
    folds_FS = _folds(labels, seed)
    training_FS = 1 - folds_FS
    groups = (training_FS[:, None] * shows_CS[None]).flatten(0, 1)
    means = groups / groups.sum(1, keepdim=True)
    overall = training_FS / training_FS.sum(1, keepdim=True)
    distances = torch.zeros(len(labels), FOLDS, len(shows_CS), dtype=torch.float64)
    for part in in_chunks(rates_SU):
        part -= part.mean(0)
        variance_FU = overall @ part.square() - (overall @ part).square()
        precise = variance_FU > 1e-12 * part.square().mean(0)
        weight_FU = torch.where(precise, variance_FU, torch.inf).reciprocal()
        centroids = (means @ part).view(FOLDS, len(shows_CS), -1)
        scaled = centroids * weight_FU[:, None]
        # The square of the image itself is the same for all categories.
        products = (part @ scaled.flatten(0, 1).T).view_as(distances)
        distances += (scaled * centroids).sum(2) - 2 * products
    held_out = folds_FS.argmax(0)
    return distances[torch.arange(len(labels)), held_out].argmin(1)


def _folds(labels_S: Tensor, seed: int) -> Tensor:
    """(5, S) of 0 and 1, which fold holds each image out."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.empty_like(labels_S)
    for category in range(int(labels_S.max()) + 1):
        images = (labels_S == category).nonzero().squeeze(1)
        folds[images[torch.randperm(len(images), generator=generator)]] = torch.arange(len(images)) % FOLDS
    return torch.nn.functional.one_hot(folds, FOLDS).T.double()
