"""Responses of units to a stimulus set, for any PyTorch model by layer name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdsnn.errors import GateError, UsageError
from tdsnn.progress import Progress, silent
from tdsnn.registry import suggest


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
        rates: (S, U) float32, unit i as in the layer's output flattened in (C, H, W) order; for a spiking
            layer the firing rate per time step, in [0, 1].
        shape: (C, H, W) of the layer's output; U = C * H * W.
        stimuli: what was shown.
    """

    layer: str
    rates: Tensor
    shape: tuple[int, int, int]
    stimuli: StimulusSet


@torch.no_grad()
def respond(
    model: nn.Module,
    stimuli: StimulusSet,
    layers: Sequence[str],
    *,
    batch_size: int = 100,
    progress: Progress = silent,
) -> dict[str, Responses]:
    """Show a stimulus set to a model in eval mode and record its layers.

    A layer's output may be (N, C, H, W), (T, N, C, H, W), (N, C) or (N, L, C), tokens of a transformer; a
    vector counts as (C, 1, 1), and L tokens as (C, L, 1). Time is averaged.

    Raises:
        UsageError: a layer that the model does not have, or whose output has another form.
        GateError: a response that is not finite.
    """
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    training = model.training
    try:
        model.eval()
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with record(model, layers) as outputs:
            for start in range(0, len(stimuli.images), batch_size):
                images = stimuli.images[start : start + batch_size]
                model(images.to(device))
                for layer in layers:
                    output = _over_time(layer, outputs.get(layer), samples=len(images))
                    parts[layer].append(output.float().cpu())
                progress(start + len(images), len(stimuli.images))
    finally:
        model.train(training)
    return {layer: _checked(layer, torch.cat(parts[layer]), stimuli) for layer in layers}


_PASS: ContextVar[object | None] = ContextVar("_PASS", default=None)
"""Identity of the forward pass that this thread is in, if that is one of several steps."""


@contextmanager
def one_pass() -> Iterator[None]:
    """The steps inside the block are one forward pass for :func:`record`."""
    before = _PASS.set(object())
    try:
        yield
    finally:
        _PASS.reset(before)


@contextmanager
def record(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of named layers during the calls made inside the block.

    Yields a dictionary that each forward pass fills anew: layer name to output, (T, N, C, H, W) in models of
    the zoo. Of a layer that gives (1, N, C, H, W) at each step, the steps of :func:`one_pass` are joined.
    Outputs keep their autograd graph, so a loss on them trains the model.

    Raises:
        UsageError: a layer that the model does not have.
    """
    modules = dict(model.named_modules())
    outputs: dict[str, Tensor] = {}
    recorded_in: dict[str, object] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            current = _PASS.get()
            again = current is not None and recorded_in.get(name) is current
            outputs[name] = torch.cat([outputs[name], output]) if again else output
            recorded_in[name] = current

        return hook

    for name in layers:
        if name not in modules:
            raise suggest(name, modules, kind="layer", command="print(model)")
    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _over_time(layer: str, output: Any, *, samples: int) -> Tensor:
    """(N, C, H, W) of one output of a layer."""
    if isinstance(output, Tensor):
        if output.ndim == 5 and output.shape[1] == samples:
            return output.float().mean(0)
        if output.ndim in (2, 3, 4) and len(output) == samples:
            if output.ndim == 3:
                return output.transpose(1, 2).unsqueeze(3)
            return output if output.ndim == 4 else output[:, :, None, None]
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UsageError(
        f"The layer '{layer}' gives an output of shape {shape} for {samples} images: no units on a sheet.",
        hint="Name a layer whose output is (N, C, H, W), (T, N, C, H, W), (N, L, C) or (N, C).",
    )


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
