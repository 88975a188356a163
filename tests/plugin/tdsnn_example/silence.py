"""How many units never fire on an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tdsnn.temporal import (
    Key,
    Measurement,
    Subject,
    TimeMetric,
    over_images,
    record_spikes,
    spiking_layers_of,
)


@dataclass(frozen=True, kw_only=True)
class Silence(TimeMetric):
    """Share of a layer's units without a spike in all time steps.

    Figures ``silent``, percent: mean over images with Student's 95 % interval.
    """

    needs_spikes: ClassVar[bool] = True

    def compute(self, subject: Subject) -> Measurement:
        layers = spiking_layers_of(subject.model)
        found: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
        for x, _ in subject.batches():
            for layer, spikes_TNU in record_spikes(subject.model, x, layers).items():
                found[layer].append(100 * (~spikes_TNU.any(0)).double().mean(1).cpu().numpy())
        samples = {str(Key("silent", place=layer)): np.concatenate(parts) for layer, parts in found.items()}
        figures = {key: over_images(values, unit="%") for key, values in samples.items()}
        return Measurement(figures=figures, samples=samples)
