"""Entropy of spike trains, for each layer and number of time steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from tdsnn.metrics._base import Curve, Figure
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._figures import over_images, over_time
from tdsnn.temporal._spikes import check_layers, check_steps, record_spikes, spiking_layers_of
from tdsnn.temporal._steps import Layers, Steps, layer_names, steps_of
from tdsnn.temporal._words import MOST_WORD_STEPS, Floats, rate_entropy, step_entropy, word_entropy

__all__ = ["Entropy"]

_CHUNK = 32_000_000
"""Spikes that are looked at together."""


@dataclass(frozen=True, kw_only=True)
class Entropy(TimeMetric):
    """How unpredictable spikes are, in bits per unit; the first figure is that of Fig. 1 of arXiv:2508.04270
    as far as it is stated there (H from firing probabilities, without a formula).

    Figures, for each layer, all means over its units and over images:

    - ``entropy``, for each T of ``steps``: H = -p log2 p - (1 - p) log2(1 - p) of each unit on each image, p
      being the share of the first T time steps in which it fired. At small T it can only be low (at T = 1 it
      is 0), by about 1 / (2 T ln 2) where p is not near 0 or 1: compare equal T only.
    - ``word entropy``: entropy over the images of the pattern of a unit's first ``words`` steps, one of
      2^words, with the correction of Miller and Madow: + (K - 1) / (2 n ln 2), K patterns seen in n images.

    Both follow the firing rate, and are largest where units fire in half of the steps: a network that fires
    more often has more of them, whatever the order of its spikes.

    Intervals are Student's, 95 %, over images. A word's entropy is the mean over images of -log2 of the share
    of its word; their spread is its asymptotic standard error (Basharin, 1959, doi:10.1137/1104033).

    Curves: ``entropy`` for every T up to the largest, and ``step entropy``, that of p at step t over images,
    without correction. Samples: both figures for each image.
    """

    needs_spikes: ClassVar[bool] = True

    steps: Steps = "own"
    """Numbers of time steps, ``5+10+30``; all are from one run of the largest."""
    words: Annotated[int, Meta(ge=1, le=MOST_WORD_STEPS)] = 4
    """Time steps of a word; at most the largest of ``steps``."""
    layers: Layers = ""
    """Names of modules whose outputs are spikes; by default all sheets."""

    def check(self, model: Model | Adapted) -> None:
        check_layers(model, layer_names(self.layers))
        check_steps(model, self._most(model))

    def _most(self, model: Model | Adapted) -> int:
        return steps_of(self.steps, own=model.timesteps)[-1]

    def compute(self, subject: Subject) -> Measurement:
        model = subject.model
        layers = layer_names(self.layers) or spiking_layers_of(model)
        most = self._most(model)
        packed: dict[str, list[NDArray[np.uint8]]] = {layer: [] for layer in layers}
        for x, _ in subject.batches():
            for layer, spikes in record_spikes(model, x, layers, most).items():
                packed[layer].append(np.packbits(spikes.cpu().numpy(), axis=0))
        figures: dict[str, Figure] = {}
        curves: dict[str, Curve] = {}
        samples: dict[str, Floats] = {}
        for layer in layers:
            rates, of_steps, words = self._entropies(np.concatenate(packed.pop(layer), 1), most)
            found = {
                str(Key("entropy", t, layer)): rates[t - 1] for t in steps_of(self.steps, own=model.timesteps)
            }
            found[str(Key("word entropy", min(self.words, most), layer))] = words
            samples |= found
            figures |= {key: over_images(values, unit="bits") for key, values in found.items()}
            if most > 1:
                curves[str(Key("entropy", place=layer))] = _curve(rates)
                curves[str(Key("step entropy", place=layer))] = _curve(of_steps)
        return Measurement(figures=figures, samples=samples, curves=curves)

    def _entropies(self, packed: NDArray[np.uint8], steps: int) -> tuple[Floats, Floats, Floats]:
        """Rate (T, N), step (T, N) and word entropies (N,), means over units, of packed spikes (., N, U)."""
        _, images, units = packed.shape
        rates, of_steps = np.zeros((steps, images)), np.zeros((steps, images))
        words = np.zeros(images)
        width = max(1, _CHUNK // (steps * images))
        for start in range(0, units, width):
            part = np.unpackbits(packed[:, :, start : start + width], axis=0, count=steps).view(np.bool_)
            rates += rate_entropy(part)
            of_steps += step_entropy(part)
            words += word_entropy(part[: self.words])
        return rates / units, of_steps / units, words / units


def _curve(entropies_TN: Floats) -> Curve:
    return over_time([over_images(values, unit="bits") for values in entropies_TN], y_label="entropy (bits)")
