"""Responses of units to a stimulus set, for any PyTorch model by layer name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdsnn.errors import GateError, UsageError
from tdsnn.progress import Progress, silent
from tdsnn.topography.layouts import SheetSpec, as_maps, likely_layout
from tdsnn.topography.outputs import capture_outputs, declared, evaluating


@dataclass(frozen=True, kw_only=True)
class StimulusSet:
    """Images and what each of them shows.

    Args:
        name: e.g. ``gratings``.
        images: (S, C, H, W), float in [0, 1].
        factors: name of a factor to (S,) int64, the level of each image.
        levels: name of a factor to its levels, in words or numbers with the unit in the factor's name.
    """

    name: str
    images: Tensor
    factors: Mapping[str, Tensor]
    levels: Mapping[str, tuple[str | float, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """What the units of one layer answered to a stimulus set, averaged over time.

    Args:
        layer: name of the module.
        rates: (S, U) float32, units in the order of :mod:`tdsnn.topography.layouts`; for a spiking layer the
            firing rate per time step, in [0, 1].
        shape: (C, H, W) of the layer's maps; U = C * H * W.
        stimuli: what was shown.
    """

    layer: str
    rates: Tensor
    shape: tuple[int, int, int]
    stimuli: StimulusSet


def record_responses(
    model: nn.Module,
    stimuli: StimulusSet,
    layers: Iterable[str | SheetSpec],
    *,
    batch_size: int = 100,
    progress: Progress = silent,
) -> dict[str, Responses]:
    """Show a stimulus set to a model in eval mode and record what its layers answer, averaged over time.

    Args:
        layers: as of :func:`~tdsnn.topography.outputs.capture_outputs`; a layer that nobody declares has the
            :func:`~tdsnn.topography.layouts.likely_layout`.

    Raises:
        UsageError: a layer that the model does not have, that does not run, or whose output has another form.
        GateError: a response that is not finite.
    """
    wanted = tuple(layers)
    specs = dict(declared(model, layer) for layer in wanted)
    parts: dict[str, list[Tensor]] = {layer: [] for layer in specs}
    with evaluating(model) as device, capture_outputs(model, wanted) as outputs:
        for start in range(0, len(stimuli.images), batch_size):
            images = stimuli.images[start : start + batch_size]
            model(images.to(device))
            for layer, spec in specs.items():
                answer = _over_time(layer, outputs[layer], spec, samples=len(images))
                parts[layer].append(answer)
            progress(start + len(images), len(stimuli.images))
    return {layer: _checked(layer, torch.cat(answers), stimuli) for layer, answers in parts.items()}


def _over_time(layer: str, output: Tensor, spec: SheetSpec | None, *, samples: int) -> Tensor:
    """(N, C, H, W) float32, on the CPU."""
    if spec is None:
        maps_TNCHW = as_maps(output, likely_layout(output, samples=samples), layer=layer)
    else:
        maps_TNCHW = spec.as_maps(output)
    if maps_TNCHW.shape[1] != samples:
        raise UsageError(
            f"The layer '{layer}' gives {tuple(output.shape)} for {samples} images: no units.",
            hint="Name a layer that answers each image once.",
        )
    return maps_TNCHW.float().mean(0).cpu()


def _checked(layer: str, rates_NCHW: Tensor, stimuli: StimulusSet) -> Responses:
    bad = int((~rates_NCHW.isfinite()).sum())
    if bad:
        raise GateError(
            f"{bad} of {rates_NCHW.numel()} responses of '{layer}' are not finite: nothing can be measured."
        )
    channels, height, width = rates_NCHW.shape[1:]
    return Responses(
        layer=layer, rates=rates_NCHW.flatten(1), shape=(channels, height, width), stimuli=stimuli
    )
