"""What a LIF neuron computes: its parameters, and the path that needs no compiler.

Semantics are those of SpikingJelly 2.0's ``LIFNode``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdsnn.errors import UsageError

_PIECE = 1 << 16
"""Neurons per piece: 256 KiB in fp32, so that the temporaries stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """Parameters of a leaky integrate-and-fire neuron.

    Args:
        tau: membrane time constant in steps, > 1.
        v_threshold: firing threshold.
        v_reset: potential after a spike; ``None`` subtracts the threshold instead (soft reset).
        decay_input: whether the input is divided by ``tau`` too (SpikingJelly's default).
        detach_reset: whether the reset is a constant for the backward pass.
        surrogate: shape of the surrogate derivative; ``atan``.
        surrogate_alpha: its sharpness; the derivative at threshold is ``alpha / 2``.
    """

    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    decay_input: bool = True
    detach_reset: bool = True
    surrogate: str = "atan"
    surrogate_alpha: float = 2.0

    def __post_init__(self) -> None:
        if not self.tau > 1:
            raise UsageError(f"The membrane time constant tau must be above 1, not {self.tau}.")
        if self.surrogate != "atan":
            raise UsageError(f"The surrogate '{self.surrogate}' is not known; the known one is 'atan'.")
        if not self.surrogate_alpha > 0:
            raise UsageError(f"surrogate_alpha must be positive, not {self.surrogate_alpha}.")


def fire_in_pieces(current_TM: Tensor, neuron: Neuron, potential_1M: Tensor | None = None) -> Tensor:
    """Spikes (T, M) of input currents (T, M), in the dtype of the input.

    ``potential_1M`` (1, M) in fp32 is read before the first step and overwritten after the last; there are no
    gradients then. Without it neurons start at rest and are forgotten.
    """
    if potential_1M is not None:
        with torch.no_grad():
            return _in_pieces(_fire_sequence, (current_TM, potential_1M), neuron)
    spikes: Tensor = _Pieces.apply(current_TM, neuron)
    return spikes


class _Pieces(torch.autograd.Function):
    """Saves its input only: potentials are cheaper to recompute than to keep."""

    @staticmethod
    def forward(ctx: Any, current_TM: Tensor, neuron: Neuron) -> Tensor:
        ctx.neuron = neuron
        ctx.save_for_backward(current_TM)
        return _in_pieces(_fire_sequence, (current_TM,), neuron)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (current_TM,) = ctx.saved_tensors
        return _in_pieces(_backward_sequence, (current_TM, grads[0]), ctx.neuron), None


def _in_pieces(function: Callable[..., Tensor], tensors: tuple[Tensor, ...], neuron: Neuron) -> Tensor:
    """Apply ``function`` neuron by neuron to tensors (..., M), a piece that stays in the cache at a time."""
    out = torch.empty_like(tensors[0], memory_format=torch.contiguous_format)
    for start in range(0, out.shape[1], _PIECE):
        piece = slice(start, start + _PIECE)
        out[:, piece] = function(*(tensor[:, piece] for tensor in tensors), neuron=neuron)
    return out


def _charge(current: Tensor, v: Tensor | float, neuron: Neuron) -> Tensor:
    """Membrane potential before firing (fp32), in SpikingJelly's order of operations."""
    rest = neuron.v_reset or 0.0
    current = current.float()
    drift = v - rest if rest else v
    if neuron.decay_input:
        return v + (current - drift) / neuron.tau
    return v - drift / neuron.tau + current


def _reset(h: Tensor, spike: Tensor, neuron: Neuron) -> Tensor:
    """Membrane potential after firing; ``spike`` is boolean."""
    if neuron.v_reset is None:
        return torch.where(spike, h - neuron.v_threshold, h)
    return h.masked_fill(spike, neuron.v_reset)


def _fire_sequence(current_TM: Tensor, potential_1M: Tensor | None = None, *, neuron: Neuron) -> Tensor:
    """Spikes (T, M) of input currents (T, M), in the dtype of the input."""
    spikes = [h >= neuron.v_threshold for h in _charges(current_TM, neuron, potential_1M)]
    return torch.stack([spike.to(current_TM.dtype) for spike in spikes])


def _charges(current_TM: Tensor, neuron: Neuron, potential_1M: Tensor | None = None) -> list[Tensor]:
    """Membrane potential before firing at each step, T times (M,) in fp32; moves ``potential_1M`` along."""
    v: Tensor | float = (neuron.v_reset or 0.0) if potential_1M is None else potential_1M[0]
    charges = []
    for current in current_TM.unbind(0):
        h = _charge(current, v, neuron)
        v = _reset(h, h >= neuron.v_threshold, neuron)
        charges.append(h)
    if potential_1M is not None:
        potential_1M[0] = v
    return charges


def _backward_sequence(current_TM: Tensor, grad_TM: Tensor, *, neuron: Neuron) -> Tensor:
    """Gradient (T, M) at the currents, given the one at the spikes; potentials are computed anew."""
    charges = _charges(current_TM, neuron)
    leak = 1.0 - 1.0 / neuron.tau
    gain = 1.0 / neuron.tau if neuron.decay_input else 1.0
    grad_v: Tensor | float = 0.0
    grads = []
    for h, grad_spike in zip(reversed(charges), reversed(grad_TM.unbind(0)), strict=True):
        grad_h = _backward_fire(h, grad_spike.float(), grad_v, neuron)
        grads.append(grad_h * gain)
        grad_v = grad_h * leak
    return torch.stack(grads[::-1]).to(current_TM.dtype)


def _backward_fire(h: Tensor, grad_spike: Tensor, grad_v: Tensor | float, neuron: Neuron) -> Tensor:
    """Gradient at the potential before firing, given those at the spike and at the potential after it."""
    above = h - neuron.v_threshold
    slope = math.pi / 2 * neuron.surrogate_alpha
    surrogate = neuron.surrogate_alpha / 2 / (1.0 + (slope * above) ** 2)
    if not neuron.detach_reset:
        drop = -neuron.v_threshold if neuron.v_reset is None else neuron.v_reset - h
        grad_spike = grad_spike + grad_v * drop
    if isinstance(grad_v, Tensor) and neuron.v_reset is not None:
        grad_v = grad_v.masked_fill(above >= 0, 0.0)
    return grad_spike * surrogate + grad_v
