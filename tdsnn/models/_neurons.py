"""The LIF layer over a whole sequence, without state between calls.

On CUDA SpikingJelly's kernels run; on CPU the compiled operators of :mod:`tdsnn.kernels`, or their eager
equivalent where there is no compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict

import torch
from torch import Tensor, nn

from tdsnn.kernels import fire
from tdsnn.kernels.neuron import Neuron, fire_in_pieces

# Not an attribute of the layers: those are shared by all who use the model, a context belongs to one thread.
_POTENTIALS: ContextVar[dict[LIF, Tensor] | None] = ContextVar("potentials", default=None)


@contextmanager
def carried(potentials: dict[LIF, Tensor]) -> Iterator[None]:
    """Inside the block each layer starts where ``potentials`` says and leaves its last potential there.

    The dictionary is all that outlives the block: layer to (N, ...) in fp32. A layer that it lacks starts at
    rest, so an empty one begins a sequence. Gradients are off, other threads notice nothing, and each layer
    may run once.
    """
    token = _POTENTIALS.set(potentials)
    try:
        with torch.no_grad():
            yield
    finally:
        _POTENTIALS.reset(token)


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: input current (T, N, ...) to spikes (T, N, ...) in {0, 1}.

    The membrane potential starts at the reset value (0 for a soft reset) in every call, except inside
    :func:`carried`.
    """

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.compiled = False
        """Whether the compiled operators may run on CPU."""

    def forward(self, current_TN: Tensor) -> Tensor:
        if current_TN.is_cuda:
            return _spikingjelly(self, current_TN)
        steps = len(current_TN)
        potential = self.potential(current_TN.shape[1:], current_TN.device)
        # A view in the order of memory: neurons are independent, so their layout does not matter.
        order = sorted(range(1, current_TN.ndim), key=lambda axis: current_TN.stride(axis), reverse=True)
        inverse = [order.index(axis) + 1 for axis in range(1, current_TN.ndim)]
        laid_out = current_TN.permute(0, *order)
        row = None if potential is None else potential[None].permute(0, *order).reshape(1, -1).contiguous()
        if self.compiled and fire.supports(current_TN, self.neuron, steps):
            flat = laid_out.reshape(steps, -1, 1).contiguous()
            spikes = fire.fire(flat, None, fire.Call(self.neuron, steps, potential=row))
        else:
            spikes = fire_in_pieces(laid_out.flatten(1), self.neuron, row)
        if row is not None:
            self.carry(row.view(1, *laid_out.shape[1:]).permute(0, *inverse)[0])
        return spikes.view(laid_out.shape).permute(0, *inverse)

    def potential(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """The carried potential of ``shape`` (N, ...) in fp32, at rest in the beginning; None if none is."""
        potentials = _POTENTIALS.get()
        if potentials is None:
            return None
        if self not in potentials:
            return torch.full(shape, self.neuron.v_reset or 0.0, dtype=torch.float32, device=device)
        return potentials[self]

    def carry(self, potential: Tensor) -> None:
        """Leave a potential (N, ...) for the next call; outside :func:`carried` it is forgotten."""
        potentials = _POTENTIALS.get()
        if potentials is not None:
            potentials[self] = potential

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in asdict(self.neuron).items())


def activate(
    activation: nn.Module,
    bn: nn.BatchNorm2d,
    current: Tensor,
    *,
    steps: int,
    constant: bool = False,
    shortcut: Tensor | None = None,
    shortcut_bn: nn.BatchNorm2d | None = None,
) -> Tensor:
    """``activation(bn(current) + shortcut_bn(shortcut))``, as one operator where there is one.

    Args:
        current: (T * N, C, H, W), or (N, C, H, W) if it is ``constant``: the same at every step.
        steps: T.
        shortcut: (T * N, C, H, W), or None; added as it is without ``shortcut_bn``.

    Returns:
        (T, N, C, H, W).
    """
    if isinstance(activation, LIF) and _fuses(activation, bn, current, steps, shortcut, shortcut_bn):
        return _fused(activation, bn, current, steps, constant, shortcut, shortcut_bn)
    out = bn(current)
    if shortcut is not None:
        out = out + (shortcut if shortcut_bn is None else shortcut_bn(shortcut))
    out_TN = out.expand(steps, *out.shape) if constant else out.unflatten(0, (steps, -1))
    spikes: Tensor = activation(out_TN)
    return spikes


def _fuses(
    activation: LIF,
    bn: nn.BatchNorm2d,
    current: Tensor,
    steps: int,
    shortcut: Tensor | None,
    shortcut_bn: nn.BatchNorm2d | None,
) -> bool:
    """Whether the operator takes these operands, and nobody listens to the modules that it replaces."""
    norms = [norm for norm in (bn, shortcut_bn) if norm is not None]
    return (
        activation.compiled
        and fire.supports(current, activation.neuron, steps)
        and (shortcut is None or shortcut.dtype == current.dtype)
        and all(type(norm) is nn.BatchNorm2d and norm.weight.dtype == torch.float32 for norm in norms)
        and not any(module._forward_hooks for module in (*norms, activation))
    )


def _fused(
    activation: LIF,
    bn: nn.BatchNorm2d,
    current: Tensor,
    steps: int,
    constant: bool,
    shortcut: Tensor | None,
    shortcut_bn: nn.BatchNorm2d | None,
) -> Tensor:
    channels, height, width = current.shape[1:]
    flat = _channels_last(current)
    flat_shortcut = None if shortcut is None else _channels_last(shortcut)
    images = len(current) // (1 if constant else steps)
    potential = activation.potential(torch.Size((images, channels, height, width)), current.device)
    rows = None if potential is None else _channels_last(potential)
    call = fire.Call(
        activation.neuron,
        steps,
        current=fire.normalisation(bn, flat),
        shortcut=None
        if shortcut_bn is None or flat_shortcut is None
        else fire.normalisation(shortcut_bn, flat_shortcut),
        potential=rows,
    )
    spikes = fire.fire(
        flat if constant else flat.view(steps, -1, channels),
        None if flat_shortcut is None else flat_shortcut.view(steps, -1, channels),
        call,
    )
    if rows is not None:
        activation.carry(rows.view(images, height, width, channels).permute(0, 3, 1, 2))
    return spikes.view(steps, images, height, width, channels).permute(0, 1, 4, 2, 3)


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) as rows of channels (N * H * W, C); a view if that is how they lie in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()


def _spikingjelly(layer: LIF, current_TN: Tensor) -> Tensor:
    from spikingjelly.activation_based import functional, surrogate

    neuron = layer.neuron
    start = layer.potential(current_TN.shape[1:], current_TN.device)
    if start is None:
        start = torch.full_like(current_TN[0], neuron.v_reset or 0.0, dtype=torch.float32)
    spikes: Tensor
    spikes, potential, _ = functional.lif_multi_step(
        current_TN,
        start,
        tau=neuron.tau,
        decay_input=neuron.decay_input,
        v_threshold=neuron.v_threshold,
        v_reset=neuron.v_reset,
        surrogate_function=surrogate.ATan(alpha=neuron.surrogate_alpha),
        detach_reset=neuron.detach_reset,
    )
    layer.carry(potential)
    return spikes
