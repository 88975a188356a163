"""Spikes and answers of a network step by step, also of another number of steps than its own."""

from __future__ import annotations

import torch
from torch import Tensor

from tdsnn.attacks._gradient import finite
from tdsnn.errors import GateError, UsageError
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.models._foreign_spikes import spiking_layers
from tdsnn.registry import suggest
from tdsnn.topography.layouts import as_maps, likely_layout
from tdsnn.topography.outputs import capture_outputs, declared


def spiking_layers_of(model: Model | Adapted) -> tuple[str, ...]:
    """Names of the layers whose outputs are spikes, in the order of the network; none that are known: empty.

    Of a model of the zoo its sheet layers, or all spiking layers where it has no sheet.
    """
    if isinstance(model, Adapted):
        found = {id(layer) for layer, _ in spiking_layers(model.net)}
        return tuple(name for name, layer in model.named_modules() if id(layer) in found)
    if not model.neurons:
        return ()
    neurons = {id(layer) for layer in model.neurons}
    return model.sheet_layers or tuple(n for n, layer in model.named_modules() if id(layer) in neurons)


def check_layers(model: Model | Adapted, layers: tuple[str, ...]) -> None:
    """Refuse layers that the network does not have.

    Raises:
        UsageError: names the first.
    """
    modules = dict(model.named_modules())
    for layer in layers:
        if layer not in modules:
            raise suggest(layer, modules, kind="layer", command="print(model)")


def check_steps(model: Model | Adapted, steps: int) -> None:
    """Refuse a number of time steps that the network cannot run.

    Raises:
        UsageError: it has its time axis inside, and another number of steps.
    """
    if isinstance(model, Adapted) and model.time == "inside" and steps != model.timesteps:
        raise UsageError(
            f"{model.name} has its time axis inside, so it cannot run {steps} steps.",
            hint="See tdsnn.adapt: time='loop' or 'sequence'.",
        )


def logits_over_time(model: Model | Adapted, x: Tensor, timesteps: int | None = None) -> Tensor:
    """Outputs (T, N, K) of every time step, fp32, all finite, for images (N, C, H, W) in [0, 1]; no autograd.

    Args:
        timesteps: T; None is the model's own.

    Raises:
        GateError: the network has its time axis inside, or gave NaN or infinity.
    """
    with torch.no_grad():
        return differentiable_logits(model, x, timesteps)


def differentiable_logits(model: Model | Adapted, x: Tensor, timesteps: int | None = None) -> Tensor:
    """As :func:`logits_over_time`, with autograd as it was found."""
    if isinstance(model, Adapted):
        steps = model.timesteps if timesteps is None else timesteps
        outputs = model.outputs_of_frames(x.expand(steps, *x.shape))
    else:
        outputs = model.logits_over_time(x, timesteps)
    return finite(outputs.float(), "logits")


def record_spikes(
    model: Model | Adapted, x: Tensor, layers: tuple[str, ...], timesteps: int | None = None
) -> dict[str, Tensor]:
    """Layer to its spikes (T, N, U), bool, for images (N, C, H, W) in [0, 1]; units in the order of
    :mod:`tdsnn.topography.layouts`.

    Args:
        timesteps: T; None is the model's own.

    Raises:
        UsageError: a layer that the network does not have or that does not run, or :func:`check_steps`.
        GateError: a layer gives other values than 0 and 1.
    """
    steps = model.timesteps if timesteps is None else timesteps
    check_steps(model, steps)
    found = {}
    with torch.no_grad(), capture_outputs(model, layers) as outputs:
        if isinstance(model, Adapted) and model.time == "inside":
            model(x)
        else:
            logits_over_time(model, x, steps)
        for layer in layers:
            found[layer] = _spikes(model, layer, outputs[layer], steps=steps, samples=len(x))
    return found


def _spikes(model: Model | Adapted, layer: str, output: Tensor, *, steps: int, samples: int) -> Tensor:
    _, spec = declared(model, layer)
    if spec is None:
        units = as_maps(output, likely_layout(output, samples=samples), layer=layer).flatten(2)
    else:
        units = spec.units(output)
    if units.shape[:2] != (steps, samples):
        raise GateError(
            f"The layer '{layer}' gives {tuple(output.shape)} for {samples} images in {steps} time steps: "
            "no spikes of each step.",
            hint="Name a layer that runs once in each time step.",
        )
    spikes = units != 0
    if not bool((units == spikes).all()):
        raise GateError(
            f"The layer '{layer}' gives other values than 0 and 1, so its outputs are no spikes.",
            hint="Name a layer behind which there are spikes.",
        )
    return spikes
