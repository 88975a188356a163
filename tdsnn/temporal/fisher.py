"""Fisher information about each connection between areas, over time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from tdsnn.errors import GateError
from tdsnn.metrics._figures import resampled
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.stats import resampled_means
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._figures import over_images
from tdsnn.temporal._information import centroid, connections, information, trainable
from tdsnn.temporal._resamples import RESAMPLES, Floats, mean_curve
from tdsnn.temporal._spikes import differentiable_logits

__all__ = ["Fisher"]


@dataclass(frozen=True, kw_only=True)
class Fisher(TimeMetric):
    """When the information about each connection arrives, and how much.

    I_t is the mean over images of the squared norm of the gradient of log p(y | x, first t steps) by all
    weights of a connection, of normalisation too, with y the true label and p the softmax of the mean of the
    first t logits (Kim et al., arXiv 2211.14406; TDSNN, arXiv 2508.04270, eq. 8, which sums over the weights
    between two areas). The gradient is squared for each image; squaring that of a batch, as the published
    code does, underestimates it. A connection goes by the name of the area that it leads into, one of
    ``sheet_layers``; ``stem`` and ``read-out`` are what is before and after. Networks without areas have
    their parts at the top instead.

    The images are those that are evaluated on, not those of training. Derivatives of spikes are those of the
    surrogate that trained the network, which ``conditions`` name: with another one the numbers are others.

    Figures for each connection:

    - ``centroid``: mean over images of sum t I_t / sum I_t of one image, in steps from 1 to T, with Student's
      interval: early (1) or late information. Of one step there is none.
    - ``pooled centroid``: the same of I_t, so that an image counts by its information: those that the network
      gets wrong count most.
    - ``information``: I_T; as curve I_t against t. These have 95 % percentile bootstraps over images (1,000).
    """

    def objection(self, model: Model | Adapted) -> str | None:
        """See :meth:`TimeMetric.objection`."""
        if isinstance(model, Adapted) and model.time == "inside":
            return f"{model.name} has its time axis inside, so what it knows after each step cannot be asked."
        return super().objection(model)

    def compute(self, subject: Subject) -> Measurement:
        """See :meth:`TimeMetric.compute`."""
        model = subject.model
        net = model.net if isinstance(model, Adapted) else model
        groups = connections([name for name, _ in net.named_parameters()], _areas(model))
        if not groups:
            raise GateError("The network has no weights, so there is no information about any.")
        with trainable(net) as named:
            weights = [[named[name] for name in names] for names in groups.values()]
            parts = [
                information(partial(differentiable_logits, model), weights, x, y)
                for x, y in subject.batches()
            ]
        by_image = torch.cat(parts).cpu().numpy()
        found = [_found(place, by_image[:, index], subject.seed) for index, place in enumerate(groups)]
        figures = {key: figure for one in found for key, figure in one.figures.items()}
        # The centroids first: they are what the metric is about.
        ordered = sorted(figures, key=lambda key: _ORDER.index(Key.parse(key).quantity))
        return Measurement(
            figures={key: figures[key] for key in ordered},
            curves={key: curve for one in found for key, curve in one.curves.items()},
            samples={key: values for one in found for key, values in one.samples.items()},
            missing={key: why for one in found for key, why in one.missing.items()},
            conditions={"surrogate": _surrogate(model), "images": "those evaluated on, with true labels"},
        )


_ORDER = ("centroid", "pooled centroid", "information")


def _found(place: str, information_NT: Floats, seed: int) -> Measurement:
    """What there is about one connection."""
    n, steps = information_NT.shape
    centroid_key, pooled_key, key = (str(Key(quantity, None, place)) for quantity in _ORDER)
    means = resampled_means(information_NT, seed=seed, resamples=RESAMPLES)
    mean = information_NT.mean(0)
    figures = {key: resampled(means[:, -1], value=float(mean[-1]), unit="", n=n)}
    curve = mean_curve(
        np.arange(1.0, steps + 1),
        information_NT,
        x_label="time step",
        y_label="Fisher information",
        seed=seed,
    )
    samples, missing = {}, {}
    if refused := _no_centroid(information_NT):
        missing[centroid_key] = refused
    else:
        samples[centroid_key] = centroid(information_NT)
        figures[centroid_key] = over_images(samples[centroid_key], unit="steps")
        pooled = float(centroid(mean))
        figures[pooled_key] = resampled(centroid(means), value=pooled, unit="steps", n=n)
    return Measurement(figures=figures, curves={key: curve}, samples=samples, missing=missing)


def _areas(model: Model | Adapted) -> tuple[str, ...]:
    return () if isinstance(model, Adapted) else model.sheet_layers


def _no_centroid(information_NT: Floats) -> str | None:
    """Why there is no centroid, one sentence; None if there is one."""
    if information_NT.shape[1] == 1:
        return "The network has one time step, so nothing comes early or late."
    if silent := int((information_NT.sum(1) == 0).sum()):
        return f"{silent} of {len(information_NT)} images have no information about this connection."
    return None


def _surrogate(model: Model | Adapted) -> str:
    """What stands in for the derivative of spikes, in words."""
    if isinstance(model, Adapted):
        found = model.surrogates
    else:
        configs = [layer.config for layer in model.neurons]
        found = [f"{one.surrogate}, alpha {one.surrogate_alpha:g}" for one in configs]
    return "; ".join(dict.fromkeys(found)) or "none: no layer is known to spike"
