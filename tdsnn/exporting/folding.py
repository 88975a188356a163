"""Batch normalisation of an exported program, folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv1d.default, _ATEN.conv2d.default, _ATEN.conv3d.default)
_NORMALISATION = _ATEN.batch_norm.default


def fold_normalisations(exported: ExportedProgram) -> None:
    """Fold each batch normalisation whose input is a convolution that nothing else hears.

    A convolution that runs at each step is folded if the same normalisation follows it at all of them. The
    bias takes the place of the normalisation's. Computed in fp64, rounded once.
    """
    values = Values(exported)
    for weight in list(exported.graph.nodes):
        pairs = list(_pairs(weight))
        if weight.op == "placeholder" and pairs and _always_the_same(weight, pairs):
            _fold(values, weight, pairs)
    exported.graph_module.recompile()


def prune(exported: ExportedProgram) -> None:
    """Take away the parameters, buffers and constants that nothing uses."""
    for spec, node in _inputs(exported):
        if spec.target is not None and not node.users:
            exported.graph_signature.input_specs.remove(spec)
            exported.state_dict.pop(spec.target, None)
            exported.constants.pop(spec.target, None)
            exported.graph.erase_node(node)
    exported.graph_module.recompile()


def _inputs(exported: ExportedProgram) -> list[tuple[torch.export.graph_signature.InputSpec, Node]]:
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    return list(zip(exported.graph_signature.input_specs, placeholders, strict=True))


class Values:
    """The tensors behind the placeholders of a program."""

    def __init__(self, exported: ExportedProgram) -> None:
        self._exported = exported
        self._names = {node: spec.target for spec, node in _inputs(exported) if spec.target is not None}

    def __getitem__(self, node: Any) -> Tensor:
        name = self._names[node]
        held: Tensor | None = self._exported.state_dict.get(name)
        return self._exported.constants[name] if held is None else held

    def __contains__(self, node: object) -> bool:
        return node in self._names

    def name(self, node: Any) -> str:
        """What the model calls the tensor."""
        return self._names[node].partition(".")[2]

    def put(self, node: Any, value: Tensor) -> None:
        """Give a parameter another value."""
        self._exported.state_dict[self._names[node]] = torch.nn.Parameter(value, requires_grad=False)


def _pairs(weight: Node) -> Iterator[tuple[Node, Node | None]]:
    """Convolutions with a weight, and the normalisation that alone hears each."""
    for conv in weight.users:
        if conv.target in _CONVOLUTIONS and conv.args[1] is weight:
            (after, *others) = conv.users
            alone = not others and after.target is _NORMALISATION and after.args[0] is conv
            yield conv, after if alone else None


def _always_the_same(weight: Node, pairs: Sequence[tuple[Node, Node | None]]) -> bool:
    """Whether the weight has no other use, and one normalisation of constants follows each time."""
    if len(pairs) != len(weight.users):
        return False
    normalisations = [norm for _, norm in pairs if norm is not None]
    if len(normalisations) != len(pairs):
        return False
    conv, norm = pairs[0][0], normalisations[0]
    scale, shift, *_, training = norm.args[1:6]
    return (
        not training
        and isinstance(scale, Node)
        and isinstance(shift, Node)
        and set(shift.users) == set(normalisations)
        and all(other.args[1:] == norm.args[1:] for other in normalisations)
        and all(_bias(other) is _bias(conv) for other, _ in pairs)
    )


def _bias(conv: Node) -> Node | None:
    bias = conv.args[2] if len(conv.args) > 2 else None
    return bias if isinstance(bias, Node) else None


def _fold(values: Values, weight: Node, pairs: Sequence[tuple[Node, Node | None]]) -> None:
    conv, norm = pairs[0]
    assert norm is not None
    scale, shift, mean, variance = (values[node].double() for node in norm.args[1:5])
    epsilon: Any = norm.args[7]
    bias = _bias(conv)
    gain = scale / (variance + epsilon).sqrt()
    kernel = values[weight]
    start = mean.new_zeros(()) if bias is None else values[bias].double()
    values.put(weight, (kernel.double() * gain.view(-1, *[1] * (kernel.ndim - 1))).to(kernel.dtype))
    values.put(norm.args[2], (shift + (start - mean) * gain).to(kernel.dtype))
    for conv, norm in pairs:
        assert norm is not None
        conv.args = (*conv.args[:2], norm.args[2], *conv.args[3:])
        norm.replace_all_uses_with(conv)
        norm.graph.erase_node(norm)
