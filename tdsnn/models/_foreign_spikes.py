"""The spikes of other libraries' layers, and how another derivative is put in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tdsnn.kernels.surrogates import Memory, Surrogate

_SPIKES = ("surrogate_function", "spike_grad")
"""Where the layers of SpikingJelly and of snnTorch keep the function from potential - threshold to spikes."""
_POTENTIALS = ("v", "mem")
"""Where they keep the potential after a step."""
Slopes = Callable[[Tensor, Memory], Tensor]
"""Distances from the threshold (T, N, S, C) and what was noted about them, to derivatives."""


class OtherDerivative(nn.Module):
    """The spikes of one function with another derivative; called once at each time step."""

    def __init__(self, spikes: Callable[[Tensor], Tensor], slopes: Slopes) -> None:
        super().__init__()
        self._spikes, self._slopes = spikes, slopes
        self.calls = 0
        """Since the network forgot its potentials."""
        self.memories: list[Memory] = []
        """What the surrogate has noted at each of the calls."""

    def forward(self, above: Tensor) -> Tensor:
        with torch.no_grad():
            spikes = self._spikes(above)
        if not torch.is_grad_enabled():
            return spikes
        if self.calls == len(self.memories):
            self.memories.append({})
        memory = self.memories[self.calls]
        self.calls += 1
        found: Tensor = _Spike.apply(above, spikes, self._slopes, memory)
        return found


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor, spikes: Tensor, slopes: Slopes, memory: Memory) -> Tensor:
        ctx.save_for_backward(above)
        ctx.slopes, ctx.memory = slopes, memory
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (above,) = ctx.saved_tensors
        # (1, N, S, C): one step, S places of C channels each.
        rows = above.flatten(2).movedim(1, -1)[None] if above.ndim > 2 else above[None, :, None]
        slopes = ctx.slopes(rows, ctx.memory)[0]
        if above.ndim > 2:
            return grads[0] * slopes.movedim(-1, 1).reshape(above.shape), None, None, None
        return grads[0] * slopes[:, 0], None, None, None


def slopes_of(surrogate: Surrogate) -> Slopes:
    """Derivatives of one step.

    Raises:
        GateError: the surrogate is a rule for all steps together.
    """
    if type(surrogate).gradients is not Surrogate.gradients:
        surrogate.derivative  # noqa: B018  # raises
    return surrogate.slopes


def spiking_layers(net: nn.Module) -> list[tuple[nn.Module, str]]:
    """Layers with spikes, and where each keeps their function."""
    return [
        (layer, place)
        for layer in net.modules()
        for place in _SPIKES
        if callable(getattr(layer, place, None))
    ]


def potential_bytes(net: nn.Module, *, samples: int) -> float:
    """Bytes of potentials that the spiking layers hold for each of the samples of the last call; 0: none."""
    found = [getattr(layer, place, None) for layer, _ in spiking_layers(net) for place in _POTENTIALS]
    held = [one for one in found if isinstance(one, Tensor) and one.ndim and len(one) == samples]
    return sum(one.numel() * one.element_size() for one in held) / samples
