"""Operations of a forward pass, counted for every image and time step where values enter weights.

What counts is NeuroBench's definition (2.3, ``SynapticOperations``): one operation is a weight that is not
zero times an input that is not zero. Inputs all of {-1, 0, 1} need no multiplication: accumulations (ACs);
one other value makes the whole of it multiply-accumulates (MACs). That is decided for each image and step,
which is what NeuroBench, deciding for each call, gives at batch size 1. Not counted: biases, pooling,
normalisation (it folds into the weights before it), neurons, and products outside of layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tdsnn.errors import GateError

_FEATURE_AXES = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3, nn.Conv3d: 4}
"""The layers that are counted, and how many axes of their input one sample of one step has."""


@dataclass(frozen=True, kw_only=True)
class SynapseCounts:
    """Operations of one layer with weights; S is T, or 1 where it runs once for all steps."""

    effective_SN: Tensor
    """(S, N) float64: non-zero weight times non-zero input."""
    binary_SN: Tensor
    """(S, N) bool: whether the inputs are all of {-1, 0, 1}, so that the operations are ACs."""
    dense: int
    """Operations of one image and step with nothing skipped but padding."""
    padded: int
    """The same with the products of padding, as a plain convolution computes them."""
    before_activation: bool
    """Whether it ran before any activation: it reads the image itself."""
    weight_bytes: int
    """Bytes of one weight."""

    @property
    def acs_SN(self) -> Tensor:
        """(S, N) effective operations on binary inputs."""
        return self.effective_SN * self.binary_SN

    @property
    def macs_SN(self) -> Tensor:
        """(S, N) effective operations on other inputs."""
        return self.effective_SN * ~self.binary_SN


@dataclass(frozen=True, kw_only=True)
class ActivityCounts:
    """Outputs of one activation layer."""

    active_SN: Tensor
    """(S, N) int64: units that are not zero."""
    units: int


@dataclass(kw_only=True)
class Counts:
    """Of the calls made inside :func:`counting`, by name of the layer, in the order of their first call."""

    synapses: dict[str, SynapseCounts] = field(default_factory=dict)
    activity: dict[str, ActivityCounts] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """T: how often the layer that ran most often did."""
        return max(_calls(self).values(), default=0)


@contextmanager
def counting(
    net: nn.Module, activations: Mapping[str, nn.Module], *, samples: int, time_first: bool
) -> Iterator[Counts]:
    """Count what one forward pass of N samples does; a layer's calls are its time steps, in order.

    Args:
        activations: the layers whose zeros are sparsity, by name.
        samples: N of the batch.
        time_first: whether two leading axes are (T, N), not (N, positions); if one fits only, that is it.

    Raises:
        GateError: a layer whose input or output does not have N samples; in the pass.
    """
    counts = Counts()
    note = _Notes(counts, samples, time_first)
    with ExitStack() as hooks:
        for name, layer in net.named_modules():
            if type_of(layer) is not None:
                hooks.callback(layer.register_forward_hook(partial(note.synapses, name)).remove)
        for name, layer in activations.items():
            hooks.callback(layer.register_forward_hook(partial(note.activity, name)).remove)
        yield counts


def type_of(layer: nn.Module) -> type[nn.Module] | None:
    """The kind of counted layer that this is one of; None for others."""
    return next((kind for kind in _FEATURE_AXES if isinstance(layer, kind)), None)


def fan_out(layer: nn.Module, feature_shape: Sequence[int], *, all_weights: bool = False) -> Tensor:
    """In how many products each input value of one sample takes part, float64 of ``feature_shape``.

    Args:
        layer: a linear one or a convolution.
        all_weights: whether weights that are zero count too.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    used = torch.ones_like(weight) if all_weights else (weight != 0).to(weight.dtype)
    # The products that a value takes part in are the derivative of the number of all products by it.
    with torch.enable_grad():
        ones = torch.ones(1, *feature_shape, dtype=weight.dtype, device=weight.device, requires_grad=True)
        if isinstance(layer, nn.Linear):
            products = F.linear(ones, used.detach())
        else:
            assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            products = layer._conv_forward(ones, used.detach(), None)
        (counts,) = torch.autograd.grad(products.sum(), ones)
    return counts[0].double()


def by_step_and_sample(
    values: Tensor, features: int, *, samples: int, time_first: bool, layer: str
) -> Tensor:
    """(..., features axes) as (S, N, ...).

    Raises:
        GateError: no axis has the N samples.
    """
    shape = tuple(values.shape)
    leading = shape[: len(shape) - features]
    second = len(leading) > 1 and leading[1] == samples
    if leading and leading[0] == samples and not (time_first and second):
        return values[None]
    if second:
        return values
    if leading and leading[0] % samples == 0:
        return values.reshape(-1, samples, *shape[1:])
    raise GateError(
        f"The layer '{layer}' is called with {shape} for {samples} images: its operations belong to none.",
        hint="Operations are counted where each image is a row of its own in every layer.",
    )


class _Notes:
    """The hooks, and what they keep between calls."""

    def __init__(self, counts: Counts, samples: int, time_first: bool) -> None:
        self._counts, self._samples, self._time_first = counts, samples, time_first
        self._fan_out: dict[tuple[str, tuple[int, ...]], tuple[Tensor, int]] = {}

    def synapses(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        kind = type_of(layer)
        assert kind is not None
        axes = _FEATURE_AXES[kind]
        (values,) = inputs
        rows = self._rows(name, values.detach(), axes)
        shape = tuple(values.shape[-axes:])
        if (name, shape) not in self._fan_out:
            dense = int(fan_out(layer, shape, all_weights=True).sum())
            self._fan_out[name, shape] = fan_out(layer, shape).flatten(), dense
        weights, dense = self._fan_out[name, shape]
        used = (rows != 0).flatten(-axes).double() @ weights
        places = math.prod(rows.shape[2 : rows.ndim - axes])
        binary = ((rows == 0) | (rows.abs() == 1)).flatten(2).all(2)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        found = SynapseCounts(
            effective_SN=used.flatten(2).sum(2) if used.ndim > 2 else used,
            binary_SN=binary,
            dense=places * dense,
            padded=output.numel() // (rows.shape[0] * rows.shape[1]) * weight[0].numel(),
            before_activation=not self._counts.activity,
            weight_bytes=weight.element_size(),
        )
        before = self._counts.synapses.get(name)
        self._counts.synapses[name] = found if before is None else _joined([before, found], axis=0)

    def activity(self, name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output
        rows = self._rows(name, values.detach(), 0)
        active = (rows != 0).flatten(2).sum(2) if rows.ndim > 2 else (rows != 0).long()
        before = self._counts.activity.get(name)
        self._counts.activity[name] = ActivityCounts(
            active_SN=active if before is None else torch.cat([before.active_SN, active]),
            units=math.prod(rows.shape[2:]),
        )

    def _rows(self, name: str, values: Tensor, features: int) -> Tensor:
        return by_step_and_sample(
            values, features, samples=self._samples, time_first=self._time_first, layer=name
        )


def joined(parts: Sequence[Counts]) -> Counts:
    """Counts of all images, of those of one batch after the other; there is at least one.

    Raises:
        GateError: a layer that ran in one batch only, or another number of times.
    """
    first = parts[0]
    for other in parts[1:]:
        if _calls(other) != _calls(first):
            raise GateError(
                "The layers of this network do not run equally often for all images.",
                hint="Operations are counted of networks that compute the same for each image.",
            )
    return Counts(
        synapses={name: _joined([part.synapses[name] for part in parts], axis=1) for name in first.synapses},
        activity={
            name: replace(one, active_SN=torch.cat([part.activity[name].active_SN for part in parts], 1))
            for name, one in first.activity.items()
        },
    )


def _calls(counts: Counts) -> dict[str, int]:
    synapses = {name: len(one.effective_SN) for name, one in counts.synapses.items()}
    return synapses | {name: len(one.active_SN) for name, one in counts.activity.items()}


def _joined(parts: Sequence[SynapseCounts], *, axis: int) -> SynapseCounts:
    return replace(
        parts[0],
        effective_SN=torch.cat([one.effective_SN for one in parts], axis),
        binary_SN=torch.cat([one.binary_SN for one in parts], axis),
    )


def zero_weights(net: nn.Module) -> tuple[int, int]:
    """Weights that are zero, and all weights, of the counted layers; biases are none."""
    weights = [layer.weight for layer in net.modules() if type_of(layer) is not None]
    found = [weight for weight in weights if isinstance(weight, Tensor)]
    return sum(int((one == 0).sum()) for one in found), sum(one.numel() for one in found)


def footprint_bytes(net: nn.Module) -> int:
    """Bytes of all parameters and buffers, zeros included (NeuroBench's ``Footprint``)."""
    return sum(one.numel() * one.element_size() for one in (*net.parameters(), *net.buffers()))
