"""Normalisation, shortcut and LIF neurons as one CPU operator, forward and backward.

The layer computes ``LIF(normalise(current) + [normalise](shortcut))`` over all time steps while the numbers
pass through the registers once. Nothing is kept for the backward pass but the operands.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdsnn.kernels._library import STORAGE, library
from tdsnn.kernels.neuron import Neuron

_Pointer = ctypes.c_void_p


class _Operand(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("data", "mean", "variance", "weight", "bias")),
        ("epsilon", ctypes.c_float),
        ("batch", ctypes.c_int32),
        ("constant", ctypes.c_int32),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "count", "channels")),
        ("current", _Operand),
        ("shortcut", _Operand),
        *((name, ctypes.c_float) for name in ("tau", "threshold", "reset", "alpha")),
        *((name, ctypes.c_int32) for name in ("decay_input", "soft", "detach_reset", "half", "threads")),
        ("potential", _Pointer),
    )


@dataclass(frozen=True)
class Normalisation:
    """What a batch normalisation does in one call; tensors (C,) in fp32."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    epsilon: float
    batch: bool
    """Whether mean and variance are those of the operand itself."""


def supports(current: Tensor, neuron: Neuron, steps: int) -> bool:
    """Whether the operator takes this input; it is compiled when first asked."""
    return (
        current.device.type == "cpu"
        and current.dtype in STORAGE
        and bool(library())
        and steps <= library().call("tdsnn_fire_max_steps")
    )


def normalisation(bn: nn.BatchNorm2d, x_MC: Tensor) -> Normalisation:
    """What ``bn`` does to ``x_MC`` (rows, C); in training mode its running statistics move, as in PyTorch."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    if not bn.training:
        return Normalisation(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps, batch=False)
    rows, channels = x_MC.shape
    mean, variance = x_MC.new_empty(2, channels, dtype=torch.float32).unbind(0)
    library().call(
        "tdsnn_moments",
        x_MC.data_ptr(),
        STORAGE[x_MC.dtype],
        rows,
        channels,
        torch.get_num_threads(),
        mean.data_ptr(),
        variance.data_ptr(),
    )
    with torch.no_grad():
        assert bn.num_batches_tracked is not None
        bn.num_batches_tracked.add_(1)
        # Without a momentum PyTorch keeps the plain mean over all batches.
        share = 1.0 / float(bn.num_batches_tracked) if bn.momentum is None else bn.momentum
        bn.running_mean.lerp_(mean, share)
        bn.running_var.lerp_(variance * (rows / max(rows - 1, 1)), share)
    return Normalisation(mean, variance, bn.weight, bn.bias, bn.eps, batch=True)


@dataclass(frozen=True)
class Call:
    """All that is not an operand. ``potential`` (M, C) in fp32 is read before and written after the steps."""

    neuron: Neuron
    steps: int
    current: Normalisation | None = None
    shortcut: Normalisation | None = None
    potential: Tensor | None = None


def fire(current: Tensor, shortcut: Tensor | None, call: Call) -> Tensor:
    """Spikes (T, M, C) of contiguous operands.

    Args:
        current: (T, M, C), or (M, C) if it is the same at every step; fp32 or bf16.
        shortcut: (T, M, C) or None, of the same dtype.
    """
    parameters = [
        tensor
        for norm in (call.current, call.shortcut)
        for tensor in ((norm.weight, norm.bias) if norm else (None, None))
    ]
    spikes: Tensor = _Fire.apply(current, shortcut, *parameters, call)
    return spikes


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, shortcut: Tensor | None, *rest: Any) -> Tensor:
        call: Call = rest[-1]
        ctx.save_for_backward(current, shortcut)
        ctx.call = call
        spikes = current.new_empty((call.steps, *current.shape[-2:]))
        library().call("tdsnn_fire", ctypes.byref(_problem(current, shortcut, call)), spikes.data_ptr())
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        current, shortcut = ctx.saved_tensors
        call: Call = ctx.call
        grad = grad.to(current.dtype).contiguous()
        to_current = torch.empty_like(current) if ctx.needs_input_grad[0] else None
        to_shortcut = torch.empty_like(shortcut) if ctx.needs_input_grad[1] else None
        wanted = [ctx.needs_input_grad[2 + k] or ctx.needs_input_grad[3 + k] for k in (0, 2)]
        channels = current.shape[-1]
        parameters = [
            tensor
            for want in wanted
            for tensor in (
                grad.new_empty(2, channels, dtype=torch.float32).unbind(0) if want else (None, None)
            )
        ]
        outputs = (to_current, to_shortcut, *parameters)
        library().call(
            "tdsnn_fire_backward",
            ctypes.byref(_problem(current, shortcut, call)),
            grad.data_ptr(),
            *(_address(tensor) for tensor in outputs),
        )
        return (*outputs, None)


def _problem(current: Tensor, shortcut: Tensor | None, call: Call) -> _Problem:
    rows, channels = current.shape[-2:]
    neuron = call.neuron
    return _Problem(
        call.steps,
        rows * channels,
        channels,
        _operand(current, call.current, constant=current.ndim == 2),
        _operand(shortcut, call.shortcut, constant=False),
        neuron.tau,
        neuron.v_threshold,
        neuron.v_reset or 0.0,
        neuron.surrogate_alpha,
        neuron.decay_input,
        neuron.v_reset is None,
        neuron.detach_reset,
        STORAGE[current.dtype],
        torch.get_num_threads(),
        _address(call.potential),
    )


def _operand(data: Tensor | None, norm: Normalisation | None, *, constant: bool) -> _Operand:
    if norm is None:
        return _Operand(data=_address(data), constant=constant)
    return _Operand(
        _address(data),
        norm.mean.data_ptr(),
        norm.variance.data_ptr(),
        norm.weight.data_ptr(),
        norm.bias.data_ptr(),
        norm.epsilon,
        norm.batch,
        constant,
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
