"""The LIF neuron over a whole sequence, without state between calls.

Semantics are SpikingJelly 2.0's ``LIFNode`` (hard or soft reset, optional input decay, optional detached
reset). On CUDA its kernels run; on CPU an own autograd function computes the same values with one pass over
memory in each direction and keeps only its input for the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError

_PIECE = 1 << 16
"""Neurons per piece of the eager path: 256 KiB in fp32, so that its temporaries stay in the cache."""


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


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: input current (T, N, ...) to spikes (T, N, ...) in {0, 1}.

    The membrane potential starts at the reset value (0 for a soft reset) in every call.
    """

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.compiled = False
        """Whether the CPU path runs through ``torch.compile`` (needs a C++ compiler)."""

    def forward(self, current_TN: Tensor) -> Tensor:
        if current_TN.is_cuda:
            return _spikingjelly(current_TN, self.neuron)
        spikes: Tensor = _SequenceLIF.apply(current_TN, self.neuron, self.compiled)
        return spikes

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in asdict(self.neuron).items())


def _spikingjelly(current_TN: Tensor, neuron: Neuron) -> Tensor:
    from spikingjelly.activation_based import functional, surrogate

    rest = torch.full_like(current_TN[0], neuron.v_reset or 0.0, dtype=torch.float32)
    spikes: Tensor = functional.lif_multi_step(
        current_TN,
        rest,
        tau=neuron.tau,
        decay_input=neuron.decay_input,
        v_threshold=neuron.v_threshold,
        v_reset=neuron.v_reset,
        surrogate_function=surrogate.ATan(alpha=neuron.surrogate_alpha),
        detach_reset=neuron.detach_reset,
    )[0]
    return spikes


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


class _SequenceLIF(torch.autograd.Function):
    """LIF over (T, ...). Saves its input only: potentials are cheaper to recompute than to keep."""

    @staticmethod
    def forward(ctx: Any, current_TN: Tensor, neuron: Neuron, compiled: bool) -> Tensor:
        ctx.neuron, ctx.compiled = neuron, compiled
        ctx.save_for_backward(current_TN)
        return _elementwise(_fire_sequence, (current_TN,), neuron, compiled=compiled)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (current_TN,) = ctx.saved_tensors
        pair = (current_TN, grads[0])
        return _elementwise(_backward_sequence, pair, ctx.neuron, compiled=ctx.compiled), None, None


def _elementwise(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], neuron: Neuron, *, compiled: bool
) -> Tensor:
    """Apply ``function`` neuron by neuron to tensors (T, ...) of one shape, keeping the memory layout.

    Layout is ignored by viewing each tensor as (T, neurons). The eager path then works through pieces that
    stay in the cache; the compiled one needs a single kernel for all sizes.
    """
    first = tensors[0]
    order = sorted(range(1, first.ndim), key=lambda axis: first.stride(axis), reverse=True)
    # ``data`` drops the link to the tensor viewed, which the compiler would specialise on.
    flat = [tensor.permute(0, *order).flatten(1).data for tensor in tensors]
    if compiled:
        out = _compiled(function)(*flat, neuron=neuron)
    else:
        out = torch.empty_like(flat[0], memory_format=torch.contiguous_format)
        for start in range(0, out.shape[1], _PIECE):
            piece = slice(start, start + _PIECE)
            out[:, piece] = function(*(tensor[:, piece] for tensor in flat), neuron=neuron)
    sizes = [first.shape[axis] for axis in order]
    inverse = [order.index(axis) + 1 for axis in range(1, first.ndim)]
    return out.view(-1, *sizes).permute(0, *inverse)


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=True)


@cache
def can_compile(neuron: Neuron) -> bool:
    """Whether the compiled path works here; trying it is also what compiles it."""
    current = torch.zeros(4, 256, requires_grad=True)
    try:
        spikes: Tensor = _SequenceLIF.apply(current, neuron, True)
        spikes.sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError:  # what Inductor raises without a working compiler
        return False
    return True


def _fire_sequence(current_TM: Tensor, *, neuron: Neuron) -> Tensor:
    """Spikes (T, M) of input currents (T, M), in the dtype of the input."""
    spikes = [h >= neuron.v_threshold for h in _charges(current_TM, neuron)]
    return torch.stack([spike.to(current_TM.dtype) for spike in spikes])


def _charges(current_TM: Tensor, neuron: Neuron) -> list[Tensor]:
    """Membrane potential before firing at each step, T times (M,) in fp32."""
    v: Tensor | float = neuron.v_reset or 0.0
    charges = []
    for current in current_TM.unbind(0):
        h = _charge(current, v, neuron)
        v = _reset(h, h >= neuron.v_threshold, neuron)
        charges.append(h)
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
