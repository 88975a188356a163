"""What gradient attacks on a model differentiate through, as far as that is known."""

from __future__ import annotations

from dataclasses import dataclass

from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model

_KNOWN = ("torch", "tdsnn")
"""Packages whose layers have the gradient that they say: PyTorch's the exact one, this project's below."""


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The gradient of a model's outputs with respect to its input."""

    surrogate: str | None
    """Shapes of the surrogates of its spikes, or that they are not known; None: there are none."""
    words: str
    """The same within a sentence."""


def has_spikes(model: Model | Adapted) -> bool:
    """Whether a surrogate stands in for the derivative of anything in the network, as far as is known."""
    return model.spiking if isinstance(model, Adapted) else gradient_of(model).surrogate is not None


def gradient_of(model: Model | Adapted) -> Gradient:
    """Look at every layer; the surrogate of one from another package is not known, nor whether it has one."""
    if isinstance(model, Adapted) and model.surrogates:
        return Gradient(surrogate="; ".join(model.surrogates), words="the surrogate as trained")
    neurons = {layer.config for layer in model.neurons}
    shapes = sorted({f"{neuron.surrogate}, alpha {neuron.surrogate_alpha:g}" for neuron in neurons})
    kinds = {type(layer) for layer in model.modules()}
    foreign = sorted(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind.__module__.partition(".")[0] not in _KNOWN
    )
    if foreign:
        unknown = f"not known for {', '.join(foreign)}"
        return Gradient(
            surrogate="; ".join([*shapes, unknown]), words="a gradient that is not known to be exact"
        )
    if shapes:
        return Gradient(surrogate="; ".join(shapes), words="the training surrogate")
    return Gradient(surrogate=None, words="the exact gradient")
