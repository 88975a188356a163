"""A layer of neurons with another derivative: the operator ``bn_add_lif`` but for its backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tdsnn.kernels import _bn_add_lif_inputs as c
from tdsnn.kernels._bn_add_lif_inputs import DIFFERENTIABLE, POSITIONS, Inputs
from tdsnn.kernels._operators import below_autograd
from tdsnn.kernels.bn_add_lif import ADAPTIVE_BACKWARD, FORWARD, from_pytorch, received
from tdsnn.kernels.lif import charges
from tdsnn.kernels.surrogates._base import BackwardPass, Memory, Surrogate

_PARAMETERS = DIFFERENTIABLE.index("weight")
"""From here on, differentiable inputs are parameters."""


def surrogated(
    surrogate: Surrogate, memory: Memory, samples: int, compiled: bool, *arguments: Any
) -> tuple[Tensor, Tensor]:
    """As the operator, with its arguments; gradients are those of ``surrogate``, once differentiable.

    Args:
        memory: of the surrogate about this layer.
        samples: N, of which the M places are N * S.
        compiled: whether the operator may compute it, with the same spikes.
    """
    spikes, last = _Surrogated.apply(surrogate, memory, samples, compiled, *arguments)
    return spikes, last


class _Surrogated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, surrogate: Surrogate, memory: Memory, samples: int, compiled: bool, *arguments: Any
    ) -> tuple[Tensor, Tensor]:
        ctx.surrogate, ctx.memory, ctx.samples, ctx.compiled = surrogate, memory, samples, compiled
        c.save(ctx, arguments)
        if compiled:
            spikes, last = below_autograd(FORWARD, *arguments)
        else:
            spikes, last = from_pytorch(Inputs(*arguments), *(arguments[place] for place in POSITIONS))
        return spikes, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_last: Tensor | None) -> tuple[Any, ...]:
        inputs = c.saved(ctx)
        wanted = [ctx.needs_input_grad[4 + place] for place in POSITIONS]
        size = inputs.current.shape[-2:]
        if grad_spikes is None:
            grad_spikes = inputs.current.new_zeros((inputs.steps, *size))
        shape = torch.Size((inputs.steps, ctx.samples, size[0] // ctx.samples, size[1]))
        # Gradients of parameters and batch statistics take a second pass, which would count images twice.
        compiled = ctx.compiled and not (inputs.of_batch or inputs.shortcut_of_batch)
        compiled = compiled and not any(wanted[_PARAMETERS:])
        found: Sequence[Tensor | None]
        statistics = ctx.surrogate.statistics(shape, ctx.memory) if compiled else None
        if statistics is not None:
            numerator, *means = statistics
            inputs = inputs._replace(surrogate_alpha=numerator)
            found = ADAPTIVE_BACKWARD(grad_spikes, grad_last, wanted, *means, *inputs)
        else:
            found = _eager(ctx.surrogate, ctx.memory, shape, inputs, wanted, grad_spikes, grad_last)
        gradients: list[Tensor | None] = [None] * len(inputs)
        for place, want, gradient in zip(POSITIONS, wanted, found, strict=True):
            gradients[place] = gradient if want else None
        return (None, None, None, None, *gradients)


def _eager(
    surrogate: Surrogate,
    memory: Memory,
    shape: torch.Size,
    inputs: Inputs,
    wanted: list[bool],
    grad_spikes: Tensor,
    grad_last: Tensor | None,
) -> list[Tensor | None]:
    """Gradients at the differentiable inputs, None at one that is not wanted."""
    operands: dict[str, Any] = {}
    for name, place, want in zip(DIFFERENTIABLE, POSITIONS, wanted, strict=True):
        tensor = inputs[place]
        if want and name != "initial" and isinstance(tensor, Tensor):
            operands[name] = tensor.detach().requires_grad_()
    with torch.enable_grad():
        current = received(inputs._replace(**operands))
    current_TNSC = current.detach().reshape(shape)
    initial = None if inputs.initial is None else inputs.initial.view(shape[1:])
    potentials, last = charges(inputs.config, current_TNSC, initial)
    to_current, to_initial = surrogate.gradients(
        BackwardPass(
            config=inputs.config,
            current=current_TNSC,
            potentials=torch.stack(potentials),
            grad_spikes=grad_spikes.to(last.dtype).reshape(shape),
            grad_last=torch.zeros_like(last) if grad_last is None else grad_last.reshape(shape[1:]),
            memory=memory,
        )
    )
    found = {} if inputs.initial is None else {"initial": to_initial.view_as(inputs.initial)}
    if operands:
        leaves = list(operands.values())
        gradients = torch.autograd.grad(current, leaves, to_current.reshape(current.shape))
        found |= dict(zip(operands, gradients, strict=True))
    return [found.get(name) for name in DIFFERENTIABLE]
