"""What a LIF neuron computes: its settings, and the paths that need no compiler.

Semantics are those of SpikingJelly 2.0's ``LIFNode``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.kernels._operators import differentiable_gradients

_PIECE = 1 << 16
"""Neurons per piece on a CPU: 256 KiB in fp32, so that the temporaries stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class LIFConfig:
    """Settings of a leaky integrate-and-fire neuron.

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
        for name in ("tau", "v_threshold", "v_reset", "surrogate_alpha"):
            value = getattr(self, name)
            if (name, value) != ("v_reset", None) and not _is_finite(value):
                raise UsageError(f"{name} must be a finite number, not {value!r}.")
        for name in ("decay_input", "detach_reset"):
            if type(value := getattr(self, name)) is not bool:
                raise UsageError(f"{name} must be true or false, not {value!r}.")
        if not self.tau > 1:
            raise UsageError(f"The membrane time constant tau must be above 1, not {self.tau}.")
        if self.surrogate != "atan":
            raise UsageError(f"The surrogate '{self.surrogate}' is not known; the known one is 'atan'.")
        if not self.surrogate_alpha > 0:
            raise UsageError(f"surrogate_alpha must be positive, not {self.surrogate_alpha}.")
        if not self.v_threshold > self.v_rest:
            raise UsageError(
                f"v_threshold must be above the resting potential {self.v_rest}, not {self.v_threshold}."
            )

    @property
    def v_rest(self) -> float:
        """Potential before the first step: the reset value, 0 for a soft reset."""
        return self.v_reset or 0.0


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def potential_dtype(current: Tensor) -> torch.dtype:
    """Type of the potentials that belong to a current: fp32, or fp64 if the current is."""
    return torch.promote_types(current.dtype, torch.float32)


def lif(current_TM: Tensor, config: LIFConfig, initial_M: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Spikes (T, M) in the dtype of the currents, and the potential (M,) after the last step.

    Args:
        current_TM: input currents (T, M).
        initial_M: potential (M,) before the first step, of :func:`potential_dtype`; None is at rest.
    """
    spikes_TM, last_M = _Lif.apply(current_TM, initial_M, config)
    return spikes_TM, last_M


class _Lif(torch.autograd.Function):
    """Saves its inputs only: potentials are cheaper to recompute than to keep."""

    @staticmethod
    def forward(current_TM: Tensor, initial_M: Tensor | None, config: LIFConfig) -> tuple[Tensor, ...]:
        return _in_pieces(partial(_sequence, config), current_TM, initial_M)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        current_TM, initial_M, ctx.config = inputs
        ctx.save_for_backward(current_TM, initial_M)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        current_TM, initial_M = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives may be asked for
            function = partial(differentiable_lif, config=ctx.config)
            to_current, to_initial = differentiable_gradients(function, (current_TM, initial_M), grads)
        else:
            backward = partial(_backward_sequence, ctx.config)
            to_current, to_initial = _in_pieces(backward, current_TM, initial_M, *grads)
        return to_current, None if initial_M is None else to_initial, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        current_TM, initial_M, config = inputs
        mapped = torch.vmap(partial(differentiable_lif, config=config), in_dims[:2])
        return mapped(current_TM, initial_M), (0, 0)


def differentiable_lif(
    current_TM: Tensor, initial_M: Tensor | None = None, *, config: LIFConfig
) -> tuple[Tensor, Tensor]:
    """As :func:`lif`, from operations that can be differentiated any number of times and transformed.

    Keeps all potentials. Derivatives of the spikes, also the second, are those of the surrogate.
    """
    v: Tensor | float = config.v_rest if initial_M is None else initial_M
    spikes = []
    for current in current_TM.unbind(0):
        h = charge(current, v, config)
        spike = _SurrogateSpike.apply(h - config.v_threshold, config.surrogate_alpha)
        spikes.append(spike)
        reset = spike.detach() if config.detach_reset else spike
        soft = config.v_reset is None
        v = h - config.v_threshold * reset if soft else (1 - reset) * h + reset * config.v_rest
    assert isinstance(v, Tensor), "there is at least one step"
    return torch.stack(spikes).to(current_TM.dtype), v


class _SurrogateSpike(torch.autograd.Function):
    """1 where the distance from the threshold is not negative; the derivative is the surrogate's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(above: Tensor, alpha: float) -> Tensor:
        return (above >= 0).to(above.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        above, ctx.alpha = inputs
        ctx.save_for_backward(above)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        return grads[0] * atan_slope(above, ctx.alpha), None


def atan_slope(above: Tensor, alpha: float | Tensor) -> Tensor:
    """Derivative of an arctangent of sharpness ``alpha`` at distances from the threshold."""
    return alpha / 2 / (1.0 + (math.pi / 2 * alpha * above) ** 2)


def _in_pieces(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Apply ``function`` neuron by neuron to tensors (..., M), a piece that stays in the cache at a time."""
    assert tensors[0] is not None
    if tensors[0].device.type != "cpu":
        # A GPU is fast on many at once, and each piece would be launches of its own.
        return function(*tensors)
    pieces = [
        function(*(None if tensor is None else tensor[..., start : start + _PIECE] for tensor in tensors))
        for start in range(0, max(tensors[0].shape[-1], 1), _PIECE)
    ]
    return (
        pieces[0] if len(pieces) == 1 else tuple(torch.cat(parts, -1) for parts in zip(*pieces, strict=True))
    )


def charge(current: Tensor, v: Tensor | float, config: LIFConfig) -> Tensor:
    """Membrane potential before firing, in SpikingJelly's order of operations."""
    current = current.to(potential_dtype(current))
    drift = v - config.v_rest if config.v_rest else v
    if config.decay_input:
        return v + (current - drift) / config.tau
    return v - drift / config.tau + current


def charges(config: LIFConfig, current_TM: Tensor, initial_M: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Membrane potential before firing at each step, T times (M,), and the one after the last step."""
    v: Tensor | float = config.v_rest if initial_M is None else initial_M
    before = []
    for current in current_TM.unbind(0):
        h = charge(current, v, config)
        spike = h >= config.v_threshold
        soft = config.v_reset is None
        v = torch.where(spike, h - config.v_threshold, h) if soft else h.masked_fill(spike, config.v_rest)
        before.append(h)
    assert isinstance(v, Tensor), "there is at least one step"
    return before, v


def _sequence(config: LIFConfig, current_TM: Tensor, initial_M: Tensor | None) -> tuple[Tensor, Tensor]:
    before, last_M = charges(config, current_TM, initial_M)
    return torch.stack([(h >= config.v_threshold).to(current_TM.dtype) for h in before]), last_M


def _backward_sequence(
    config: LIFConfig, current_TM: Tensor, initial_M: Tensor | None, grad_TM: Tensor, grad_last_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients at the currents (T, M) and at the initial potential (M,); potentials are computed anew."""
    before, _ = charges(config, current_TM, initial_M)
    to_current, to_initial = backward_through_time(
        config, before, grad_TM, grad_last_M, slope=lambda _, above: atan_slope(above, config.surrogate_alpha)
    )
    return to_current.to(current_TM.dtype), to_initial


def backward_through_time(
    config: LIFConfig,
    charges_TM: Sequence[Tensor],
    grad_TM: Tensor,
    grad_last_M: Tensor,
    *,
    slope: Callable[[int, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients at the currents (T, M) and at the initial potential (M,).

    Args:
        charges_TM: T potentials (M,) before firing.
        grad_TM, grad_last_M: gradients at the spikes and at the potential after the last step.
        slope: derivative (M,) of the spikes of a step, of its number and the distances from the threshold.
    """
    leak = 1.0 - 1.0 / config.tau
    gain = 1.0 / config.tau if config.decay_input else 1.0
    grad_v = grad_last_M
    grads = []
    for step in reversed(range(len(charges_TM))):
        h = charges_TM[step]
        grad_h = _backward_step(config, h, grad_TM[step].to(h.dtype), grad_v, partial(slope, step))
        grads.append(grad_h * gain)
        grad_v = grad_h * leak
    return torch.stack(grads[::-1]), grad_v


def _backward_step(
    config: LIFConfig, h: Tensor, grad_spike: Tensor, grad_v: Tensor, slope: Callable[[Tensor], Tensor]
) -> Tensor:
    """Gradient at the potential before firing, given those at the spike and at the potential after it."""
    above = h - config.v_threshold
    if not config.detach_reset:
        drop = -config.v_threshold if config.v_reset is None else config.v_reset - h
        grad_spike = grad_spike + grad_v * drop
    if config.v_reset is not None:
        grad_v = grad_v.masked_fill(above >= 0, 0.0)
    return grad_spike * slope(above) + grad_v
