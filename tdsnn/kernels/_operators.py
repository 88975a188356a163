"""The compiled functions as operators of PyTorch, which export, ``torch.compile`` and profilers can see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Untyped, because PyTorch does not annotate its methods.
_NAMESPACE: Any = torch.library.Library("tdsnn", "DEF")  # type: ignore[no-untyped-call]


def define(
    schema: str,
    *,
    cpu: Callable[..., Any],
    gpu: Callable[..., Any] | None = None,
    fake: Callable[..., Any],
    function: type[torch.autograd.Function] | None = None,
) -> torch._ops.OpOverload:
    """Make ``tdsnn::NAME`` for a schema ``NAME(...) -> ...``.

    Args:
        cpu, gpu: compute it there.
        fake: gives outputs of the right shape, type and layout with nothing in them.
        function: gives the gradients; its ``forward`` ends in :func:`below_autograd`. Registered directly,
            because ``torch.library.register_autograd`` takes 0.3 ms a call, as long as a small layer.
    """
    name = schema.partition("(")[0]
    _NAMESPACE.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _NAMESPACE.impl(name, cpu, "CPU")
    if gpu is not None:
        _NAMESPACE.impl(name, gpu, "CUDA")
    torch.library.register_fake(f"tdsnn::{name}", fake, lib=_NAMESPACE)
    operator: torch._ops.OpOverload = getattr(torch.ops.tdsnn, name).default
    if function is not None:

        def differentiable(*arguments: Any) -> Any:
            if torch.is_grad_enabled() or forward_ad._current_level >= 0:
                return function.apply(*arguments)
            return below_autograd(operator, *arguments)

        _NAMESPACE.impl(name, differentiable, "Autograd")
    return operator


def below_autograd(operator: torch._ops.OpOverload, *arguments: Any) -> Any:
    """Call an operator from the ``forward`` of the function that gives its gradients."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def is_transformed() -> bool:
    """Whether ``torch.func`` is at work; its transforms cannot pass an operator with gradients of its own."""
    return torch._C._are_functorch_transforms_active()


def differentiable_gradients(
    function: Callable[..., Any], inputs: Sequence[Tensor | None], grads: Any
) -> list[Tensor | None]:
    """Gradients at the inputs that can be differentiated themselves; None for an input that is None.

    Args:
        function: made of differentiable operations, with an output for each of ``grads``.
        grads: gradients at the outputs.
    """
    given = [index for index, tensor in enumerate(inputs) if tensor is not None]

    def of_given(*tensors: Tensor) -> Any:
        return function(*_spread(tensors, given, len(inputs)))

    _, pullback, *_ = torch.func.vjp(of_given, *(tensor for tensor in inputs if tensor is not None))
    return _spread(pullback(grads), given, len(inputs))


def _spread(tensors: Sequence[Tensor], positions: Sequence[int], length: int) -> list[Tensor | None]:
    """``tensors`` at their positions in a list that is otherwise None."""
    spread: list[Tensor | None] = [None] * length
    for position, tensor in zip(positions, tensors, strict=True):
        spread[position] = tensor
    return spread
