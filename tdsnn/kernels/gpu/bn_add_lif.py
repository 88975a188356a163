"""The operator ``bn_add_lif`` on a GPU: the same arguments and answers as the one for CPUs.

Nothing is kept for the backward pass but the operands: in bf16 at T = 4 that is 2 bytes for each neuron and
step, 4 with a shortcut, where PyTorch's normalisation and SpikingJelly's operator for CPUs keep 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tdsnn.kernels import _bn_add_lif_inputs as c
from tdsnn.kernels._bn_add_lif_inputs import Inputs
from tdsnn.kernels.gpu import _lif_kernels as kernels
from tdsnn.kernels.gpu._tiles import Tiles, tiles


def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Spikes (T, M, C) and the last potential (M, C), or (0,) if it is not asked for."""
    inputs = c.contiguous(arguments)
    spikes, last = c.empty_outputs(inputs)
    tiled = _tiles(inputs)
    with torch.cuda.device(inputs.current.get_device()):
        kernels.fire[tiled.grid](
            **_operands(inputs),
            **_dynamics(inputs),
            **tiled.arguments,
            spikes=spikes,
            last=last if inputs.keep_last else None,
        )
    return spikes, last


def backward(
    grad_spikes: Tensor, grad_last: Tensor | None, wanted: Sequence[bool], *arguments: Any
) -> tuple[Tensor, ...]:
    """Gradients at the differentiable inputs, (0,) at one not wanted."""
    return _backward(grad_spikes, grad_last, wanted, arguments, distance=None, spread=None)


def adaptive_backward(
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    wanted: Sequence[bool],
    distance: Tensor,
    spread: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """As :func:`backward`, where the sharpness follows from moving means that are brought up to date."""
    return _backward(grad_spikes, grad_last, wanted, arguments, distance=distance, spread=spread)


def _backward(
    grad_spikes: Tensor,
    grad_last: Tensor | None,
    wanted: Sequence[bool],
    arguments: Sequence[Any],
    *,
    distance: Tensor | None,
    spread: Tensor | None,
) -> tuple[Tensor, ...]:
    inputs = c.contiguous(arguments)
    found = dict(zip(c.DIFFERENTIABLE, c.empty_gradients(wanted, inputs), strict=True))
    asked = {name: found[name] for name, want in zip(c.DIFFERENTIABLE, wanted, strict=True) if want}
    tiled = _tiles(inputs)
    through_time = {
        **_operands(inputs),
        **_dynamics(inputs),
        **tiled.arguments,
        "grad_spikes": grad_spikes.to(inputs.current.dtype).contiguous(),
        "grad_last": None if grad_last is None else grad_last.contiguous(),
        "alpha": inputs.surrogate_alpha,
        "gain": 1.0 / inputs.tau if inputs.decay_input else 1.0,
        "leak": 1.0 - 1.0 / inputs.tau,
        "DETACH_RESET": inputs.detach_reset,
    }
    with torch.cuda.device(inputs.current.get_device()):
        sums: list[Tensor | None] = [None, None, None]
        if inputs.of_batch or inputs.shortcut_of_batch or asked.keys() & {"weight", "shortcut_weight"}:
            sums = _sums(inputs, tiled, through_time, asked)
        if asked.keys() & {"current", "shortcut", "initial"}:
            rows = inputs.current.shape[-2]
            kernels.gradients[tiled.grid](
                **through_time,
                **{f"to_{name}": asked.get(name) for name in ("current", "shortcut", "initial")},
                **dict(zip(("sum_grad", "sum_current", "sum_shortcut"), sums, strict=True)),
                distance=distance,
                spread=spread,
                share=1.0 / max(1, rows * (1 if _constant(inputs) else inputs.steps)),
                shortcut_share=1.0 / max(1, rows * inputs.steps),
                OF_BATCH=inputs.of_batch,
                SHORTCUT_OF_BATCH=inputs.shortcut_of_batch,
            )
    return tuple(found.values())


def _sums(
    inputs: Inputs, tiled: Tiles, through_time: dict[str, Any], asked: dict[str, Tensor]
) -> list[Tensor | None]:
    """Per channel: sums of the gradient, and of its products with the two normalised operands.

    They are the gradients at biases and weights, and are put there where those are asked for.
    """
    current, grid = inputs.current, tiled.shared_grid
    channels = current.shape[-1]
    partials = current.new_empty((grid[0], 3, channels), dtype=torch.float32)
    kernels.sum_gradients[grid](**through_time, partials=partials)
    bias, weight, shortcut_bias, shortcut_weight = (
        asked[name] if name in asked else partials.new_empty(channels)
        for name in ("bias", "weight", "shortcut_bias", "shortcut_weight")
    )
    merged = tiles(grid[0], channels)
    kernels.merge_sums[(merged.across,)](
        partials,
        bias,
        weight,
        shortcut_bias,
        shortcut_weight,
        programs=grid[0],
        channels=channels,
        **merged.arguments,
    )
    return [bias, weight, shortcut_weight]


def _tiles(inputs: Inputs) -> Tiles:
    rows, channels = inputs.current.shape[-2:]
    return tiles(rows, channels, steps=inputs.steps)


def _constant(inputs: Inputs) -> bool:
    """Whether the current is the same at every step."""
    return inputs.current.ndim == 2


def _operands(inputs: Inputs) -> dict[str, Any]:
    """What the neurons receive, as arguments of a kernel."""
    names = (*Inputs._fields[:6], *Inputs._fields[7:13], "initial")
    return {name: getattr(inputs, name) for name in names}


def _dynamics(inputs: Inputs) -> dict[str, Any]:
    """How the neurons go on, as arguments of a kernel."""
    rows, channels = inputs.current.shape[-2:]
    return {
        "rows": rows,
        "channels": channels,
        "tau": inputs.tau,
        "threshold": inputs.v_threshold,
        "rest": inputs.v_reset or 0.0,
        "STEPS": inputs.steps,
        "CONSTANT": _constant(inputs),
        "DECAY_INPUT": inputs.decay_input,
        "SOFT_RESET": inputs.v_reset is None,
    }
