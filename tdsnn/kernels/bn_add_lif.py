"""Normalisation, shortcut and LIF neurons as one operator, forward and backward.

The layer computes ``LIF(normalise(current) + [normalise](shortcut))`` over all time steps while the numbers
pass through the registers once. Nothing is kept for the backward pass but the operands. For CPUs it is in
C++, for NVIDIA's GPUs in Triton (:mod:`tdsnn.kernels.gpu`); PyTorch's dispatcher chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tdsnn.kernels import _bn_add_lif_inputs as c
from tdsnn.kernels._bn_add_lif_inputs import DIFFERENTIABLE, POSITIONS, SCHEMA, Inputs
from tdsnn.kernels._library import MAX_STEPS, STORAGE, library
from tdsnn.kernels._operators import below_autograd, define, differentiable_gradients, is_transformed
from tdsnn.kernels.gpu import _ready as gpu
from tdsnn.kernels.lif import LIFConfig, differentiable_lif
from tdsnn.kernels.moments import Normalisation

_NONE = Normalisation()


def supports(current: Tensor, steps: int) -> bool:
    """Whether the operator takes this current; on a GPU also whether it is there."""
    if current.dtype not in STORAGE or is_transformed():
        return False
    if current.device.type == "cpu":
        return steps <= MAX_STEPS
    return current.device.type == "cuda" and steps <= gpu.MOST_STEPS and bool(gpu.ready(current.device))


def bn_add_lif(
    current: Tensor,
    config: LIFConfig,
    *,
    steps: int,
    normalise: Normalisation = _NONE,
    shortcut: Tensor | None = None,
    normalise_shortcut: Normalisation = _NONE,
    initial: Tensor | None = None,
    keep_last: bool = False,
    operator: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Spikes (T, M, C) in the dtype of the current, and the potential (M, C) in fp32 after the last step.

    Args:
        current: (T, M, C), or (M, C) if it is the same at every step; fp32 or bf16.
        steps: T, as many as :func:`supports` takes.
        shortcut: (T, M, C) or None, of the same dtype.
        initial: potential (M, C) in fp32 before the first step; None is at rest.
        keep_last: whether the last potential is asked for; otherwise what is returned for it is empty.
        operator: takes the place of the operator, with its arguments and answers.

    Raises:
        MissingError: there is no operator for this device here.
    """
    spikes, last = (operator or FORWARD)(
        current,
        *normalise,
        shortcut,
        *normalise_shortcut,
        initial,
        steps,
        keep_last,
        config.tau,
        config.v_threshold,
        config.v_reset,
        config.decay_input,
        config.detach_reset,
        config.surrogate_alpha,
    )
    return spikes, last


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = c.contiguous(arguments)
    spikes, last = c.empty_outputs(inputs)
    to_last = last.data_ptr() if inputs.keep_last else None
    library().call("tdsnn_bn_add_lif", c.problem(inputs), spikes.data_ptr(), to_last)
    return spikes, last


def _backward(
    grad_spikes: Tensor, grad_last: Tensor | None, wanted: Sequence[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    return _gradients(grad_spikes, grad_last, wanted, arguments)


def _adaptive_backward(
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    wanted: Sequence[bool],
    distance: Tensor,
    spread: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    return _gradients(grad_spikes, grad_last, wanted, arguments, statistics=(distance, spread))


def _gradients(
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    wanted: Sequence[bool],
    arguments: Sequence[Any],
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Gradients at the differentiable inputs, (0,) at one not wanted; ``statistics`` as of ``problem``."""
    inputs = c.contiguous(arguments)
    grad_spikes = grad_spikes.to(inputs.current.dtype).contiguous()
    grad_last = None if grad_last is None else grad_last.contiguous()
    gradients = c.empty_gradients(wanted, inputs)
    library().call(
        "tdsnn_bn_add_lif_backward",
        c.problem(inputs, statistics),
        grad_spikes.data_ptr(),
        c.address(grad_last),
        *(each.data_ptr() if want else None for each, want in zip(gradients, wanted, strict=True)),
    )
    return gradients


class _BnAddLif(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        c.save(ctx, arguments)
        spikes, last = below_autograd(FORWARD, *arguments)
        return spikes, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * len(Inputs._fields)
        grad_spikes, grad_last = grads
        if grad_spikes is None and grad_last is None:
            return tuple(gradients)
        inputs = c.saved(ctx)
        if grad_spikes is None:
            grad_spikes = inputs.current.new_zeros((inputs.steps, *inputs.current.shape[-2:]))
        wanted = [ctx.needs_input_grad[position] for position in POSITIONS]
        computed: Sequence[Tensor | None]
        if torch.is_grad_enabled():  # second derivatives may be asked for
            computed = _differentiable_backward(grad_spikes, grad_last, inputs)
        else:
            # The gradients of weight and bias come together.
            pairs = [wanted[3] or wanted[4]] * 2 + [wanted[5] or wanted[6]] * 2
            computed = _BACKWARD(grad_spikes, grad_last, wanted[:3] + pairs, *inputs)
        for position, want, gradient in zip(POSITIONS, wanted, computed, strict=True):
            gradients[position] = gradient if want else None
        return tuple(gradients)


def _differentiable_backward(
    grad_spikes: Tensor, grad_last: Tensor | None, inputs: Inputs
) -> list[Tensor | None]:
    operands: list[Any] = [inputs[position] for position in POSITIONS]
    grads = grad_spikes, torch.zeros_like(grad_spikes[0]).float() if grad_last is None else grad_last
    return differentiable_gradients(partial(from_pytorch, inputs), operands, grads)


def from_pytorch(inputs: Inputs, *operands: Any) -> tuple[Tensor, Tensor]:
    """The operator from differentiable operations, with ``operands`` for its differentiable inputs."""
    inputs = inputs._replace(**dict(zip(DIFFERENTIABLE, operands, strict=True)))
    current = received(inputs)
    size = current.shape[-2:]
    spikes_TM, last_M = differentiable_lif(
        current.flatten(1),
        None if inputs.initial is None else inputs.initial.flatten(),
        config=inputs.config,
    )
    return spikes_TM.view(-1, *size).to(inputs.current.dtype), last_M.view(size)


def received(inputs: Inputs) -> Tensor:
    """What the neurons receive, (T, M, C) in fp32, from differentiable operations."""
    current = _normalised(*inputs.current_operand)
    if inputs.shortcut is not None:
        current = current + _normalised(*inputs.shortcut_operand)
    return current.expand(inputs.steps, *current.shape[-2:])


def _normalised(*operand: Any) -> Tensor:
    data, mean, variance, weight, bias, epsilon, of_batch = operand
    x: Tensor = data.float()
    if mean is None:
        return x
    if of_batch:
        variance, mean = torch.var_mean(x.flatten(0, -2), 0, correction=0)
    scale: Tensor = (variance + epsilon).rsqrt() * weight
    return torch.addcmul(bias, x - mean, scale)


_GRADIENTS = f"({', '.join(['Tensor'] * len(DIFFERENTIABLE))})"
FORWARD = define(
    f"bn_add_lif({SCHEMA}) -> (Tensor spikes, Tensor last)",
    cpu=_forward,
    gpu=gpu.operator("bn_add_lif", "forward"),
    fake=lambda *arguments: c.empty_outputs(Inputs(*arguments)),
    function=_BnAddLif,
)
_BACKWARD = define(
    f"bn_add_lif_backward(Tensor grad_spikes, Tensor? grad_last, bool[] wanted, {SCHEMA}) -> {_GRADIENTS}",
    cpu=_backward,
    gpu=gpu.operator("bn_add_lif", "backward"),
    fake=lambda _spikes, _last, wanted, *arguments: c.empty_gradients(wanted, arguments),
)
ADAPTIVE_BACKWARD = define(
    "bn_add_lif_adaptive_backward(Tensor grad_spikes, Tensor? grad_last, bool[] wanted, "
    f"Tensor(a!) distance, Tensor(b!) spread, {SCHEMA}) -> {_GRADIENTS}",
    cpu=_adaptive_backward,
    gpu=gpu.operator("bn_add_lif", "adaptive_backward"),
    fake=lambda _spikes, _last, wanted, _distance, _spread, *arguments: c.empty_gradients(wanted, arguments),
)
"""As the backward pass, for the surrogate whose sharpness follows from moving means (T, M, C), in fp32 and
contiguous, of the distance from the threshold and of its spread; it brings them up to date."""
