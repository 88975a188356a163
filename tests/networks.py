"""Small real architectures with activity in every layer, for tests."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tdsnn.kernels._library import library
from tdsnn.kernels.convolution import has_tiles
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._registry import MODELS

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="the CPU has no AMX tiles")
needs_compiler = pytest.mark.skipif(not library(), reason="no C++ compiler")

NEURONS = st.builds(
    LIFConfig,
    tau=st.sampled_from([1.5, 2.0, 4.0]),
    v_threshold=st.sampled_from([0.5, 1.0]),
    v_reset=st.sampled_from([None, 0.0, -0.2]),
    decay_input=st.booleans(),
    detach_reset=st.booleans(),
    surrogate_alpha=st.sampled_from([1.0, 2.0, 5.0]),
)
"""Every kind of neuron, for property tests."""

EXAMPLES = 12 if os.environ.get("TRITON_INTERPRET") else 50
"""Of property tests of a layer, for which Triton's interpreter takes a hundred times as long."""

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""Convolutions of other batch sizes round differently. No spike flips with these seeds: far outside."""


SMALL = {"width": 8, "in_channels": 2, "mean": (0.4, 0.5), "std": (0.2, 0.3)}
"""Arguments for small networks on :func:`pictures`."""


def taken(name: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Those of the arguments that an architecture takes."""
    return {key: arguments[key] for key in inspect.signature(MODELS.load(name)).parameters.keys() & arguments}


def pictures(n: int, *, seed: int = 1) -> Tensor:
    return torch.rand(n, 2, 16, 16, generator=torch.Generator().manual_seed(seed))


def network(name: str, *, compiled: bool = False, **arguments: object) -> Model:
    """In eval mode, with normalisations that make every layer fire."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.load(name)(**(taken(name, SMALL) | arguments))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.weight, 1.0, 2.0)
                nn.init.uniform_(module.bias, 0.0, 1.0)
        with torch.no_grad():
            model.train()(torch.rand(16, model.in_channels, 16, 16))
    if compiled and not model.compile_operators():
        pytest.skip("no C++ compiler")
    return model.eval()


def count(module: nn.Module) -> Callable[[], int]:
    """How often a module has run since; the hook lives as long as the module."""
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return lambda: len(calls)
