"""Arguments of the operator ``bn_add_lif`` in Python and in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tdsnn.kernels._library import STORAGE
from tdsnn.kernels.lif import LIFConfig


class Inputs(NamedTuple):
    """In the order of :data:`SCHEMA`; see :func:`tdsnn.kernels.bn_add_lif.bn_add_lif`."""

    current: Tensor
    mean: Tensor | None
    variance: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    epsilon: float
    of_batch: bool
    shortcut: Tensor | None
    shortcut_mean: Tensor | None
    shortcut_variance: Tensor | None
    shortcut_weight: Tensor | None
    shortcut_bias: Tensor | None
    shortcut_epsilon: float
    shortcut_of_batch: bool
    initial: Tensor | None
    steps: int
    keep_last: bool
    tau: float
    v_threshold: float
    v_reset: float | None
    decay_input: bool
    detach_reset: bool
    surrogate_alpha: float

    @property
    def current_operand(self) -> tuple[Any, ...]:
        """The current and its normalisation."""
        return self[:7]

    @property
    def shortcut_operand(self) -> tuple[Any, ...]:
        return self[7:14]

    @property
    def config(self) -> LIFConfig:
        return LIFConfig(
            tau=self.tau,
            v_threshold=self.v_threshold,
            v_reset=self.v_reset,
            decay_input=self.decay_input,
            detach_reset=self.detach_reset,
            surrogate_alpha=self.surrogate_alpha,
        )


SCHEMA = """
    Tensor current, Tensor? mean, Tensor? variance, Tensor? weight, Tensor? bias,
    float epsilon, bool of_batch,
    Tensor? shortcut, Tensor? shortcut_mean, Tensor? shortcut_variance, Tensor? shortcut_weight,
    Tensor? shortcut_bias, float shortcut_epsilon, bool shortcut_of_batch,
    Tensor? initial, int steps, bool keep_last,
    float tau, float v_threshold, float? v_reset, bool decay_input, bool detach_reset, float surrogate_alpha
"""
DIFFERENTIABLE = ("current", "shortcut", "initial", "weight", "bias", "shortcut_weight", "shortcut_bias")
POSITIONS = tuple(Inputs._fields.index(name) for name in DIFFERENTIABLE)


def save(ctx: Any, arguments: Sequence[Any]) -> None:
    """Keep the operator's arguments for a backward pass."""
    ctx.tensors = [k for k, each in enumerate(arguments) if isinstance(each, Tensor)]
    ctx.save_for_backward(*(arguments[k] for k in ctx.tensors))
    ctx.settings = [None if isinstance(each, Tensor) else each for each in arguments]
    ctx.set_materialize_grads(False)


def saved(ctx: Any) -> Inputs:
    """What :func:`save` kept."""
    arguments = list(ctx.settings)
    for position, tensor in zip(ctx.tensors, ctx.saved_tensors, strict=True):
        arguments[position] = tensor
    return Inputs(*arguments)


def empty_outputs(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Spikes and last potential with nothing in them; the latter (0,) if it is not kept."""
    size = inputs.current.shape[-2:]
    spikes = inputs.current.new_empty((inputs.steps, *size))
    return spikes, spikes.new_empty(size if inputs.keep_last else (0,), dtype=torch.float32)


def empty_gradients(wanted: Sequence[bool], arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    """Gradients at :data:`DIFFERENTIABLE` with nothing in them, (0,) at one not wanted."""
    return tuple(
        torch.empty_like(arguments[position], memory_format=torch.contiguous_format)
        if want
        else arguments[0].new_empty((0,))
        for position, want in zip(POSITIONS, wanted, strict=True)
    )


class _Operand(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "mean", "variance", "weight", "bias")),
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
        *((name, ctypes.c_void_p) for name in ("initial", "distance", "spread")),
    )


def contiguous(arguments: Sequence[Any]) -> Inputs:
    """The arguments as the C++ code takes them."""
    laid_out: list[Any] = [each.contiguous() if isinstance(each, Tensor) else each for each in arguments]
    return Inputs._make(laid_out)


def problem(inputs: Inputs, statistics: tuple[Tensor, Tensor] | None = None) -> Any:
    """Reference to the C structure of contiguous inputs, which must outlive it.

    Args:
        statistics: what the surrogate's sharpness follows from, contiguous; brought up to date by a backward
            pass. None: it is ``surrogate_alpha`` everywhere.
    """
    rows, channels = inputs.current.shape[-2:]
    return ctypes.byref(
        _Problem(
            inputs.steps,
            rows * channels,
            channels,
            _operand(*inputs.current_operand, constant=inputs.current.ndim == 2),
            _operand(*inputs.shortcut_operand, constant=False),
            inputs.tau,
            inputs.v_threshold,
            inputs.v_reset or 0.0,
            inputs.surrogate_alpha,
            inputs.decay_input,
            inputs.v_reset is None,
            inputs.detach_reset,
            STORAGE[inputs.current.dtype],
            torch.get_num_threads(),
            address(inputs.initial),
            *(address(tensor) for tensor in statistics or (None, None)),
        )
    )


def _operand(*operand: Any, constant: bool) -> _Operand:
    *tensors, epsilon, of_batch = operand
    return _Operand(*(address(tensor) for tensor in tensors), epsilon, of_batch, constant)


def address(tensor: Tensor | None) -> int | None:
    """Where the numbers of a tensor are; null for None."""
    return None if tensor is None else tensor.data_ptr()
