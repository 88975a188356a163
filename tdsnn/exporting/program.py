"""A model as one program of plain operations: steps unrolled, normalisations folded into convolutions."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from tdsnn.errors import UsageError
from tdsnn.exporting.folding import fold_normalisations, prune
from tdsnn.kernels.lif import LIFConfig, charge
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State, initial_potential

_ROOT = "network"
_TRACED = 3
"""Images of the traced batch. Other than 0 and 1, which would be taken for a size that never changes."""
_ATEN = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one forward pass computes, as a graph of PyTorch's operators with a batch of any size."""

    exported: ExportedProgram
    neurons: Mapping[str, LIFConfig]
    """Spiking layer to its settings, in the order in which they fire."""
    spikes: Mapping[str, tuple[str, ...]]
    """Spiking layer to the names of the nodes, one for each step, that compare potentials (N, ...) with the
    threshold."""
    memory: tuple[str, ...]
    """What is remembered from step to step besides the potentials of these layers."""

    def layer(self, node: Node) -> str:
        """The spiking layer that a node belongs to; empty for one outside of them."""
        return _layer(node, self.neurons)


class _PlainLIF(LIF):
    """The same neurons from operations that every format knows."""

    place = ""
    """Name of the potential in the state, once it was kept there."""

    def forward(self, current_TN: Tensor, state: State | None = None, name: str = "") -> Tensor:
        config = self.config
        initial = initial_potential(state, name, current_TN.shape[1:])
        v: Tensor | float = config.v_rest if initial is None else initial
        spikes = []
        for current in current_TN.unbind(0):
            h = charge(current, v, config)
            fired = h >= config.v_threshold
            v = torch.where(fired, h - config.v_threshold if config.v_reset is None else config.v_rest, h)
            spikes.append(fired.to(current.dtype))
        if state is not None:
            assert isinstance(v, Tensor), "there is at least one step"
            state[name], self.place = v, name
        return torch.stack(spikes)


class _Unrolled(nn.Module):
    def __init__(self, network: Model, timesteps: int) -> None:
        super().__init__()
        self.add_module(_ROOT, network)
        self._timesteps = timesteps

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.get_submodule(_ROOT)(images, self._timesteps)
        return logits


def spiking_layers(model: Model) -> dict[str, LIF]:
    """Name to module of the LIF layers."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LIF)}


def layer_of(path: str) -> str:
    """Name of a module in the model, of its path in a traced program; there the number of the call may be
    behind a module that is called again."""
    return re.sub(r"@\d+", "", path).removeprefix(f"{_ROOT}.")


def trace(model: Model, shape: tuple[int, int, int], timesteps: int) -> Program:
    """The program of a model, which stays as it is.

    Args:
        shape: (C, H, W) of the images; their number may be any.
        timesteps: T.

    Raises:
        UsageError: a network that is not a fixed sequence of operators, or neurons whose spikes an attack
            replaced.
    """
    network = copy.deepcopy(model).cpu().float().eval()
    for name, layer in spiking_layers(network).items():
        if layer.surrogate is not None and layer.surrogate.replaces_spikes:
            raise UsageError(
                f"The spikes of layer '{name}' were replaced for an attack, so they cannot be exported.",
                hint="Export the model that with_surrogate was called on.",
            )
        if type(layer) is LIF:
            layer.__class__ = _PlainLIF
    exported = _export(_Unrolled(network, timesteps), shape)
    _clean(exported)
    fold_normalisations(exported)
    prune(exported)
    neurons = {name: layer.config for name, layer in spiking_layers(network).items()}
    spikes: dict[str, list[str]] = {}
    for node in exported.graph.nodes:
        if node.target is _ATEN.ge.Scalar and (layer_name := _layer(node, neurons)):
            spikes.setdefault(layer_name, []).append(node.name)
    return Program(
        exported=exported,
        neurons={layer: neurons[layer] for layer in spikes},
        spikes={layer: tuple(names) for layer, names in spikes.items()},
        memory=_memory(network, shape),
    )


def _memory(network: Model, shape: tuple[int, int, int]) -> tuple[str, ...]:
    with torch.no_grad():
        encoded = network.encode(torch.full((1, *shape), 0.5))
        _, state = network.step(encoded, network.init_state(encoded))
    potentials = {layer.place for layer in network.neurons if isinstance(layer, _PlainLIF)}
    return tuple(name for name in state if name not in potentials)


def _export(unrolled: nn.Module, shape: tuple[int, int, int]) -> ExportedProgram:
    images = torch.full((_TRACED, *shape), 0.5)
    sizes = {"images": {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad():
            return torch.export.export(unrolled, (images,), dynamic_shapes=sizes, strict=False)
    except Exception as error:  # whatever the architecture's code makes of a traced tensor
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UsageError(
            f"The network is not a fixed sequence of operators: {reason}.",
            hint="Its step may not decide by the values of tensors, nor by the number of images.",
        ) from error


def _clean(exported: ExportedProgram) -> None:
    """Take away assertions about types, which were checked while tracing, and what is known of the source."""
    for node in list(exported.graph.nodes):
        if node.target is _ATEN._assert_tensor_metadata.default:
            exported.graph.erase_node(node)
        elif node.target is _ATEN.to.dtype and node.args[0].meta["val"].dtype == node.args[1]:
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # places in files of this machine
    exported.graph.eliminate_dead_code()


def _layer(node: Node, layers: Mapping[str, Any]) -> str:
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    layer = layer_of(modules[-1][0]) if modules else ""
    return layer if layer in layers else ""
