"""Outputs of named layers during forward passes, for any PyTorch model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.registry import suggest
from tdsnn.runtime import deterministic
from tdsnn.topography.layouts import SheetSpec, has_time


class CapturedOutputs(Mapping[str, Tensor]):
    """Layer to what its module gave in the last forward pass, over all calls of the pass.

    Of several calls, one for each time step, outputs with an axis of time are joined along it and others
    stacked along a new first one, when somebody asks for them: a module that is called once with all steps
    gives the same. Outputs keep their autograd graph, so a loss on them trains the model. A layer that did
    not run has no entry; asking for it is refused.

    Args:
        specs: layer to how it lies on a sheet; None where nobody says so, which counts as maps.
    """

    def __init__(self, specs: Mapping[str, SheetSpec | None]) -> None:
        self._specs = dict(specs)
        self._calls: dict[str, list[Tensor]] = {}
        self._joined: dict[str, Tensor] = {}

    def add(self, layer: str, output: Any) -> None:
        """Note one call of a layer's module; of several outputs the first, as of layers that give spikes and
        potentials.

        Raises:
            UsageError: an output that is no tensor.
        """
        if isinstance(output, tuple) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise UsageError(
                f"The layer '{layer}' gives a {type(output).__name__}, so it has no units.",
                hint="Name a layer whose output is one tensor.",
            )
        self._calls.setdefault(layer, []).append(output)
        self._joined.pop(layer, None)

    def clear(self) -> None:
        """Forget everything; the model's own ``forward`` does so when it begins."""
        self._calls.clear()
        self._joined.clear()

    def __getitem__(self, layer: str) -> Tensor:
        if layer in self._specs and layer not in self._calls:
            raise UsageError(
                f"The layer '{layer}' did not run in the model's forward pass, so it has no units.",
                hint="Name a layer whose module is called.",
            )
        if layer not in self._joined:
            self._joined[layer] = self._join(layer, self._calls[layer])
        return self._joined[layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self._calls

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def _join(self, layer: str, calls: list[Tensor]) -> Tensor:
        if len(calls) == 1:
            return calls[0]
        spec = self._specs[layer]
        timed = has_time(calls[0], spec.layout if spec else "maps")
        shapes = {tuple(call.shape)[timed:] for call in calls}
        if len(shapes) > 1:
            raise UsageError(
                f"The layer '{layer}' gives outputs of different shapes in one pass: "
                f"{' and '.join(map(str, sorted(shapes)))}.",
                hint="Run the model itself for each batch, or clear() the outputs in between.",
            )
        return torch.cat(calls) if timed else torch.stack(calls)


@contextmanager
def capture_outputs(model: nn.Module, layers: Iterable[str | SheetSpec]) -> Iterator[CapturedOutputs]:
    """Capture the outputs of layers during the calls made inside the block.

    A pass begins with a call of ``model``, whose outputs take the place of those before. Calls of its parts
    alone, e.g. of ``step``, add to the pass.

    Args:
        layers: names of modules; how their outputs lie is what ``model.sheet_specs`` says, if it is there.
            Of another model give a :class:`SheetSpec` where the layout is not ``maps``.

    Raises:
        UsageError: a layer that the model does not have.
    """
    specs = dict(declared(model, layer) for layer in layers)
    modules = dict(model.named_modules())
    for name in specs:
        if name not in modules:
            raise suggest(name, modules, kind="layer", command="print(model)")
    outputs = CapturedOutputs(specs)
    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(lambda *_: outputs.clear()).remove)
        for name in specs:
            hook = partial(_add, outputs, name)
            hooks.callback(modules[name].register_forward_hook(hook).remove)
        yield outputs


def declared(model: nn.Module, layer: str | SheetSpec) -> tuple[str, SheetSpec | None]:
    """Name of a layer, and how its output lies on a sheet if it or the model's ``sheet_specs`` say so."""
    if isinstance(layer, SheetSpec):
        return layer.layer, layer
    known: Mapping[str, SheetSpec] = getattr(model, "sheet_specs", {})
    return layer, known.get(layer)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Inside the block the model is in eval mode, in full precision and without gradients; yields the device
    of its weights."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), deterministic():
            yield device_of(model)
    finally:
        model.train(training)


def device_of(model: nn.Module) -> torch.device:
    """Where the weights are; the CPU without any."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def sheet_shapes(
    model: nn.Module, specs: Iterable[SheetSpec], *, image_shape: tuple[int, int, int]
) -> dict[str, tuple[int, int, int]]:
    """Maps (C, H, W) of the layers for images (C, H, W), in the order of ``specs``.

    Raises:
        UsageError: a layer that the model does not have, that does not run, or has another layout.
    """
    wanted = tuple(specs)
    with evaluating(model) as device, capture_outputs(model, wanted) as outputs:
        model(torch.zeros(1, *image_shape, device=device))
    shapes = {}
    for spec in wanted:
        channels, height, width = spec.as_maps(outputs[spec.layer]).shape[2:]
        shapes[spec.layer] = (channels, height, width)
    return shapes


def _add(outputs: CapturedOutputs, layer: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    outputs.add(layer, output)
