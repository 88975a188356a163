"""From a program of one step to the nodes and edges of NIR; see :mod:`tdsnn.exporting.formats.nir`."""

from __future__ import annotations

import json
import operator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from tdsnn.errors import UsageError
from tdsnn.exporting.folding import Values
from tdsnn.exporting.program import Program
from tdsnn.kernels.lif import LIFConfig

DT, NAMES = "dt", "spiking_layers"
"""Keys of the graph's metadata: seconds of one step, and neuron node to the layer that it is."""
_STEP_SECONDS = 1e-4
"""What readers of NIR take where nobody tells them (snnTorch, SpikingJelly)."""
_ATEN = torch.ops.aten
_SHAPING = (
    _ATEN.expand.default,
    _ATEN.view.default,
    _ATEN.reshape.default,
    _ATEN.flatten.using_ints,
    _ATEN.unflatten.int,
    _ATEN.unsqueeze.default,
    _ATEN.squeeze.dim,
    _ATEN.select.int,
    _ATEN.unbind.int,
    _ATEN.clone.default,
    _ATEN.contiguous.default,
    _ATEN.stack.default,
    _ATEN.cat.default,
    operator.getitem,
)
"""Operators that move the axes of time and images, or join those of a sample."""


def nir_graph(program: Program) -> Any:
    """The graph, its metadata with the time of a step and the names of the neurons.

    Raises:
        UsageError: names the operator, the neuron or the memory that NIR cannot express.
    """
    if program.memory:
        raise _refusal(f"the memory '{program.memory[0]}'", "only potentials of neurons are kept there")
    for layer, steps in program.spikes.items():
        if len(steps) > 1:
            raise _refusal(f"the operator 'LIF' of layer '{layer}'", "it runs more than once in a step")
    builder = _Builder(program)
    for node in program.exported.graph.nodes:
        builder.add(node)
    return builder.graph()


class _Builder:
    """Nodes and edges as the program is walked through, in order."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._values = Values(program.exported)
        self._nodes: dict[str, Any] = {}
        self._edges: list[tuple[str, str]] = []
        self._sources: dict[Node, tuple[str, ...]] = {}
        """Activation to the nodes whose outputs it is the sum of."""
        self._layers: dict[str, str] = {}

    def graph(self) -> Any:
        import nir

        metadata = {DT: _STEP_SECONDS, NAMES: json.dumps(self._layers), "method": "forward Euler"}
        return nir.NIRGraph(nodes=self._nodes, edges=self._edges, metadata=metadata)

    def add(self, node: Node) -> None:
        """Express one node of the program."""
        import nir

        if node in self._values:
            return
        if node.op == "placeholder":
            self._put(node, "input", nir.Input(np.array(_sample(node))), ())
        elif node.op == "output":
            results: Any = node.args[0]
            (result,) = results
            self._put(node, "output", nir.Output(np.array(_sample(result))), self._of(result))
        elif layer := self._program.layer(node):
            self._fire(node, layer)
        elif node.target is not _ATEN.sym_size.int:
            self._compute(node)

    def _compute(self, node: Node) -> None:
        target, arguments = node.target, node.args
        if target is _ATEN.conv2d.default:
            self._convolve(node)
        elif target is _ATEN.linear.default:
            self._transform(node)
        elif target is _ATEN.add.Tensor and all(one in self._sources for one in arguments):
            self._sources[node] = self._sum(node)
        elif target is _ATEN.sub.Tensor and arguments[1] in self._values and _divided(node):
            pass
        elif target is _ATEN.div.Tensor and _is_normalisation(node):
            self._normalise(node)
        elif target is _ATEN.mean.dim:
            self._average(node)
        elif target in _SHAPING:
            self._shape(node)
        else:
            raise _unknown(node)

    def _of(self, node: Any) -> tuple[str, ...]:
        if node not in self._sources:
            raise _unknown(node)
        return self._sources[node]

    def _sum(self, node: Node) -> tuple[str, ...]:
        one, other = (self._of(argument) for argument in node.args)
        if set(one) & set(other):
            raise _refusal(
                f"the operator '{node.target}'", "two edges from one node to another are one there"
            )
        return (*one, *other)

    def _put(self, node: Node, name: str, made: Any, sources: tuple[str, ...]) -> None:
        assert name not in self._nodes, name
        self._nodes[name] = made
        self._edges += [(source, name) for source in sources]
        self._sources[node] = (name,)

    def _fire(self, node: Node, layer: str) -> None:
        """A layer of neurons begins with the currents of each step and ends with their spikes."""
        name = layer.replace(".", "_")
        if node.target is _ATEN.unbind.int:
            current = node.args[0]
            assert isinstance(current, Node)
            neurons = _neurons(self._program.neurons[layer], layer, _sample(current))
            self._put(node, name, neurons, self._of(current))
            self._layers[name] = layer
        else:
            self._sources[node] = (name,)

    def _convolve(self, node: Node) -> None:
        import nir

        given: tuple[Any, ...] = node.args
        defaults: tuple[Any, ...] = (None, [1, 1], [0, 0], [1, 1], 1)
        x, weight, bias, stride, padding, dilation, groups = (*given, *defaults[len(given) - 2 :])
        kernel = self._array(weight)
        if list(dilation) != [1, 1]:
            raise _refusal(f"the operator '{node.target}'", "with gaps in its kernel")
        made = nir.Conv2d(
            input_shape=_sample(x)[1:],
            weight=kernel,
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=(1, 1),
            groups=groups,
            bias=np.zeros(len(kernel), np.float32) if bias is None else self._array(bias),
        )
        self._put(node, self._named(weight), made, self._of(x))

    def _transform(self, node: Node) -> None:
        import nir

        x, weight, *bias = node.args
        matrix = self._array(weight)
        shift = self._array(bias[0]) if bias and bias[0] else np.zeros(len(matrix), np.float32)
        self._put(node, self._named(weight), nir.Affine(weight=matrix, bias=shift), self._of(x))

    def _normalise(self, node: Node) -> None:
        """(x - mean) / std of each channel, as a convolution of single pixels."""
        import nir

        difference, std = node.args
        assert isinstance(difference, Node)
        x, mean = difference.args
        gain = 1 / self._array(std).reshape(-1)
        made = nir.Conv2d(
            input_shape=_sample(x)[1:],
            weight=np.diag(gain)[:, :, None, None].astype(np.float32),
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=1,
            bias=(-self._array(mean).reshape(-1) * gain).astype(np.float32),
        )
        self._put(node, "normalisation", made, self._of(x))

    def _average(self, node: Node) -> None:
        import nir

        given: tuple[Any, ...] = node.args
        x, axes, *_ = given
        place, rank = _batch_axis(x), x.meta["val"].ndim
        reduced = sorted(axis % rank for axis in axes)
        if reduced == [0] and place == 1:
            self._sources[node] = self._of(x)  # over the one step that is described
            return
        channels, *size = _sample(x)
        if reduced != [place + 2, place + 3] or len(size) != 2:
            raise _unknown(node)
        pool = nir.AvgPool2d(kernel_size=np.array(size), stride=np.array(size), padding=np.array([0, 0]))
        name = self._free("mean")
        self._put(node, name, pool, self._of(x))
        flat = nir.Flatten(input_type={"input": np.array([channels, 1, 1])}, start_dim=0, end_dim=-1)
        self._put(node, f"{name}_flat", flat, (name,))

    def _shape(self, node: Node) -> None:
        import nir

        x: Any = node.args[0]
        if isinstance(x, list | tuple) and len(x) == 1:  # one step, stacked
            (x,) = x
        if not isinstance(x, Node):
            raise _unknown(node)
        before, after = _sample(x), _sample(node)
        if before == after:
            self._sources[node] = self._of(x)
        elif after == (int(np.prod(before)),):
            flat = nir.Flatten(input_type={"input": np.array(before)}, start_dim=0, end_dim=-1)
            self._put(node, self._free("flat"), flat, self._of(x))
        else:
            raise _unknown(node)

    def _array(self, node: Any) -> NDArray[np.float32]:
        if node not in self._values:
            raise _unknown(node)
        found: NDArray[np.float32] = self._values[node].detach().numpy()
        return found

    def _named(self, weight: Any) -> str:
        """What a layer is called after its weight."""
        return self._free(self._values.name(weight).removesuffix(".weight").replace(".", "_"))

    def _free(self, name: str) -> str:
        count = sum(one == name or one.startswith(f"{name}-") for one in self._nodes)
        return f"{name}-{count + 1}" if count else name


def _neurons(config: LIFConfig, layer: str, shape: tuple[int, ...]) -> Any:
    import nir

    if config.v_reset is None:
        raise _refusal(
            f"the operator 'LIF with reset by subtraction' of layer '{layer}'", "its LIF has v_reset"
        )
    above = np.float32(config.v_threshold - config.v_rest)
    constants = {
        "tau": config.tau * _STEP_SECONDS,
        "r": 1.0 if config.decay_input else config.tau,
        "v_leak": 0.0,
        "v_threshold": np.nextafter(above, np.float32(-np.inf)),
        "v_reset": 0.0,
    }
    return nir.LIF(**{key: np.full(shape, value, np.float32) for key, value in constants.items()})


def _batch_axis(node: Node) -> int:
    """The axis of the images, whose number is open."""
    axes = [axis for axis, size in enumerate(_value(node).shape) if not isinstance(size, int)]
    if len(axes) != 1:
        raise _unknown(node)
    return axes[0]


def _sample(node: Any) -> tuple[int, ...]:
    """Shape of one image's part of an activation, without the axes of time and images."""
    axis = _batch_axis(node)
    shape = _value(node).shape
    if any(size != 1 for size in shape[:axis]):
        raise _unknown(node)
    return tuple(shape[axis + 1 :])


def _value(node: Node) -> Tensor:
    value = node.meta["val"]
    found: Tensor = value[0] if isinstance(value, list | tuple) else value
    return found


def _divided(node: Node) -> bool:
    """Whether a difference is the first half of a normalisation."""
    return len(node.users) == 1 and next(iter(node.users)).target is _ATEN.div.Tensor


def _is_normalisation(node: Node) -> bool:
    difference = node.args[0]
    return isinstance(difference, Node) and difference.target is _ATEN.sub.Tensor


def _unknown(node: Any) -> UsageError:
    name = str(getattr(node, "target", node)).removesuffix(".default")
    return _refusal(f"the operator '{name}'")


def _refusal(what: str, why: str = "") -> UsageError:
    return UsageError(
        f"NIR cannot express {what} of this network{f': {why}' if why else ''}.",
        hint="ONNX can: --format onnx",
    )
