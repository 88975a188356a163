"""What a NIR graph means, computed step by step with its own equations and PyTorch's operators."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class Reference:
    """Runs graphs of the nodes that :mod:`tdsnn.exporting.formats._nir_graph` writes, without cycles.

    Neurons are integrated by forward Euler with steps of ``dt``, from potential 0, in fp32.
    """

    def __init__(self, graph: Any, *, dt: float) -> None:
        self._nodes: Mapping[str, Any] = graph.nodes
        self._sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self._sources[target].append(source)
        self._order = list(TopologicalSorter(self._sources).static_order())
        self._dt = dt
        self._constants = {
            name: {key: _tensor(value) for key, value in vars(node).items() if isinstance(value, np.ndarray)}
            for name, node in graph.nodes.items()
        }

    def run(self, images: Tensor, timesteps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs (T, N, K) and spikes (T, N, ...), bool, of every neuron node.

        Args:
            images: (N, C, H, W), the same at each step.
        """
        potentials: dict[str, Tensor] = {}
        outputs, fired = [], []
        with torch.no_grad():
            for _ in range(timesteps):
                values = self._step(images, potentials)
                outputs.append(values["output"])
                fired.append({name: values[name] > 0 for name in potentials})
        return torch.stack(outputs), {
            name: torch.stack([step[name] for step in fired]) for name in potentials
        }

    def _step(self, images: Tensor, potentials: dict[str, Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for name in self._order:
            arriving = [values[source] for source in self._sources[name]]
            x = sum(arriving[1:], start=arriving[0]) if arriving else images
            if type(self._nodes[name]).__name__ == "LIF":
                values[name] = self._fire(name, x, potentials)
            else:
                values[name] = self._pass(name, x)
        return values

    def _fire(self, name: str, x: Tensor, potentials: dict[str, Tensor]) -> Tensor:
        c = self._constants[name]
        v = potentials.get(name, torch.zeros_like(x))
        v = v + (c["v_leak"] - v + c["r"] * x) * (self._dt / c["tau"])
        fired = v > c["v_threshold"]
        potentials[name] = torch.where(fired, c["v_reset"], v)
        return fired.to(x.dtype)

    def _pass(self, name: str, x: Tensor) -> Tensor:
        node, c = self._nodes[name], self._constants[name]
        kind = type(node).__name__
        if kind == "Conv2d":
            return F.conv2d(
                x, c["weight"], c["bias"], _pair(node.stride), _pair(node.padding), groups=int(node.groups)
            )
        if kind == "Affine":
            return F.linear(x, c["weight"], c["bias"])
        if kind == "AvgPool2d":
            return F.avg_pool2d(x, _pair(node.kernel_size), _pair(node.stride))
        if kind == "Flatten":
            return x.flatten(1)
        assert kind in ("Input", "Output"), kind
        return x


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _pair(values: Any) -> tuple[int, int]:
    height, width = (int(value) for value in values)
    return height, width
