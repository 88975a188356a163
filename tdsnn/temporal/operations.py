"""Operations, firing, sizes, and what they would cost by a model of energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.errors import GateError
from tdsnn.metrics._base import Curve, Figure
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.models._foreign_spikes import potential_bytes, spiking_layers
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._counting import Counts, counting, footprint_bytes, joined, zero_weights
from tdsnn.temporal._figures import over_images

__all__ = ["Operations"]

Floats = NDArray[np.float64]
MAC_PJ, AC_PJ, BYTE_PJ = 4.6, 0.9, 24.96
ENERGY_MODEL = (
    f"45 nm, 32 bit (Horowitz 2014): {MAC_PJ} pJ a MAC, {AC_PJ} pJ an AC; memory {BYTE_PJ} pJ a byte "
    "(SpikingJelly's simple model, after STEP); an estimate, nothing was measured"
)
_OF_SPIKES = ("effective ACs", "dense ACs", "AC energy", "firing rate", "state")
"""What would be zero, and say nothing, of a network without spikes."""
_SHIFTED = ("effective ACs", "effective MACs", "activation sparsity", "firing rate")
"""What a network is set beside its twin in; the rest is the same for every image, or follows from these."""
_UNITS = {
    "activation sparsity": "",
    "firing rate": "per unit and step",
    "MAC energy": "uJ",
    "AC energy": "uJ",
    "memory energy": "uJ",
}


@dataclass(frozen=True, kw_only=True)
class Operations(TimeMetric):
    """Operations of one image, as NeuroBench 2.3 defines them (see ``_counting``), and sizes.

    Figures are means over images, with Student's 95 % interval:

    - ``effective ACs`` and ``effective MACs``: weights that are not zero times inputs that are not zero,
      where the inputs of a layer, image and step are all of {-1, 0, 1}, and where they are not. With a step,
      of the layers that run at each step. At a layer, both together are ``operations``.
    - ``dense ACs`` and ``dense MACs``: the same calls with nothing skipped but padding. Both together are
      NeuroBench's ``Dense``. SpikingJelly's ``MACCounter`` has the MACs of padding too; its ``SynOpCounter``
      gives the effective ACs, where no weight is zero.
    - ``image MACs``: those of the dense MACs that come before the first activation, of layers that read the
      image itself. Where it is the same at every step, networks of the zoo compute them once; ``image MACs
      repeated`` is what a device pays that computes them at each step, as publications count.
    - ``activation sparsity``: zeros among the outputs of all activations, over units and steps.
      ``firing rate``: spikes per unit and step; at a spiking layer its own.
    - ``MAC energy``, ``AC energy``, ``memory energy``: dense MACs, effective ACs, and bytes moved (a weight
      for each effective operation, potentials read and written at each step), times the costs of the model
      that ``conditions`` name.

    Of the network: ``parameters``, ``connection sparsity`` (share of weights that are zero), ``footprint``
    (bytes of parameters and buffers), ``state`` (bytes that one image needs from one step to the next).
    Normalisation folds into the weights before it, so it is no operation.
    """

    def compute(self, subject: Subject) -> Measurement:
        """See :meth:`TimeMetric.compute`."""
        model = subject.model
        spiking = _spiking(model)
        counts, state = _counted(subject, _activations(model) | spiking)
        if not counts.synapses:
            raise GateError(
                "The network has no linear layer and no convolution, so no operation of it is known.",
                hint="Products outside of such layers are not seen.",
            )
        samples = _per_image(counts, tuple(spiking))
        samples |= _energies(counts, samples, state=state)
        missing = {}
        if not spiking:
            missing = dict.fromkeys(_OF_SPIKES, "The network has no layer that is known to spike.")
        elif not state:
            missing = {"state": "No potentials were found in the spiking layers."}
        if not counts.activity:
            missing["activation sparsity"] = "The network has no activation layer that is known."
        samples = {key: one for key, one in samples.items() if Key.parse(key).quantity not in missing}
        figures = {
            key: over_images(values, unit=_UNITS.get(Key.parse(key).quantity, "per image"))
            for key, values in samples.items()
        }
        return Measurement(
            figures=figures | _sizes(model, state),
            curves=_curves(figures),
            samples={key: one for key, one in samples.items() if _is_shifted(Key.parse(key))},
            missing=missing,
            conditions={"energy model": ENERGY_MODEL},
        )


def _is_shifted(key: Key) -> bool:
    return key.quantity in _SHIFTED and key.steps is None


def _spiking(model: Model | Adapted) -> dict[str, nn.Module]:
    """All layers that spike, by name."""
    found = [layer for layer, _ in spiking_layers(model.net)] if isinstance(model, Adapted) else model.neurons
    known = set(map(id, found))
    return {name: layer for name, layer in model.named_modules() if id(layer) in known}


def _activations(model: nn.Module) -> dict[str, nn.Module]:
    """Layers without spikes whose zeros are sparsity, as NeuroBench finds them, by name."""
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.ReLU | nn.Sigmoid)}


def _counted(subject: Subject, activations: dict[str, nn.Module]) -> tuple[Counts, float]:
    """Counts of all images, and bytes of state of one of them; 0 if nothing is remembered."""
    model, parts, state = subject.model, [], 0.0
    time_first = not (isinstance(model, Adapted) and model.time == "loop")
    for x, _ in subject.batches():
        with (
            torch.no_grad(),
            counting(model, activations, samples=len(x), time_first=time_first) as counts,
        ):
            model(x)
        parts.append(counts)
        if isinstance(model, Adapted):
            state = potential_bytes(model.net, samples=len(x))
    if isinstance(model, Model):
        state = _state_bytes(model, x[:1])
    return joined(parts), state


def _state_bytes(model: Model, x_1CHW: Tensor) -> float:
    with torch.no_grad():
        encoded = model.encode(x_1CHW)
        _, state = model.step(encoded, model.init_state(encoded))
    return float(sum(one.numel() * one.element_size() for one in state.values()))


def _per_image(counts: Counts, spiking: tuple[str, ...]) -> dict[str, Floats]:
    """Key to (N,) operations and activity of one image."""
    layers, steps = list(counts.synapses.values()), counts.steps
    image = [one.dense * ~one.binary_SN for one in layers if one.before_activation]
    none = torch.zeros_like(layers[0].effective_SN[0])
    found = {
        "effective ACs": sum((one.acs_SN.sum(0) for one in layers), none),
        "effective MACs": sum((one.macs_SN.sum(0) for one in layers), none),
        "dense ACs": sum((one.dense * one.binary_SN.sum(0) for one in layers), none),
        "dense MACs": sum((one.dense * (~one.binary_SN).sum(0) for one in layers), none),
        "image MACs": sum((dense.sum(0) for dense in image), none),
        "image MACs repeated": sum((dense.sum(0) * (steps / len(dense)) for dense in image), none),
    }
    if every := list(counts.activity.values()):
        units = sum(one.units * len(one.active_SN) for one in every)
        found["activation sparsity"] = 1 - sum((one.active_SN.sum(0) for one in every), none) / units
    fired = {name: counts.activity[name] for name in spiking if name in counts.activity}
    if fired:
        units = sum(one.units * len(one.active_SN) for one in fired.values())
        found["firing rate"] = sum((one.active_SN.sum(0) for one in fired.values()), none) / units
    stepped = [one for one in layers if len(one.effective_SN) == steps > 1]
    for step in range(steps if stepped else 0):
        found[str(Key("effective ACs", step + 1))] = sum((one.acs_SN[step] for one in stepped), none)
        found[str(Key("effective MACs", step + 1))] = sum((one.macs_SN[step] for one in stepped), none)
    for name, synapses in counts.synapses.items():
        found[str(Key("operations", None, name))] = synapses.effective_SN.sum(0)
    for name, activity in fired.items():
        found[str(Key("firing rate", None, name))] = activity.active_SN.double().mean(0) / activity.units
    return {key: value.cpu().numpy() for key, value in found.items()}


def _energies(counts: Counts, samples: dict[str, Floats], *, state: float) -> dict[str, Floats]:
    """Key to (N,) microjoules of one image, by :data:`ENERGY_MODEL`."""
    weights = sum(one.weight_bytes * one.effective_SN.sum(0) for one in counts.synapses.values())
    assert isinstance(weights, Tensor), "there is at least one layer"
    return {
        "MAC energy": 1e-6 * MAC_PJ * samples["dense MACs"],
        "AC energy": 1e-6 * AC_PJ * samples["effective ACs"],
        "memory energy": 1e-6 * BYTE_PJ * (weights.cpu().numpy() + 2 * state * counts.steps),
    }


def _sizes(model: nn.Module, state: float) -> dict[str, Figure]:
    zero, weights = zero_weights(model)
    parameters = sum(one.numel() for one in model.parameters())
    found = {
        "parameters": (float(parameters), "count"),
        "connection sparsity": (zero / weights, ""),
        "footprint": (float(footprint_bytes(model)), "bytes"),
        "state": (state, "bytes per image"),
    }
    return {
        key: Figure(value=value, low=value, high=value, unit=unit, n=1)
        for key, (value, unit) in found.items()
        if value or key != "state"
    }


def _curves(figures: dict[str, Figure]) -> dict[str, Curve]:
    """Operations against time, of what runs at each step."""
    curves = {}
    for quantity in ("effective ACs", "effective MACs"):
        steps = [
            (key.steps, one)
            for text, one in figures.items()
            if (key := Key.parse(text)).steps and key.quantity == quantity
        ]
        if steps:
            curves[quantity] = Curve(
                x=tuple(float(step or 0) for step, _ in steps),
                y=tuple(one.value for _, one in steps),
                low=tuple(one.low for _, one in steps),
                high=tuple(one.high for _, one in steps),
                x_label="time step",
                y_label=f"{quantity} per image",
            )
    return curves
