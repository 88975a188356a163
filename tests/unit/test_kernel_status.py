"""The reported path of each operator is the one that runs, with and without a compiler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tdsnn.kernels import _library, status, swaps
from tdsnn.kernels.columns import gather_columns
from tdsnn.kernels.convolution import Conv2d, has_tiles
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._neurons import LIF

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    for function in (_library.library, has_tiles):
        function.cache_clear()
    yield
    for function in (_library.library, has_tiles):
        function.cache_clear()


def nodes(out: Tensor) -> set[str]:
    """Names of all operations that made ``out``."""
    found, todo = set(), [out.grad_fn]
    while todo:
        if (node := todo.pop()) is not None:
            found.add(type(node).__name__)
            todo += [each for each, _ in node.next_functions]
    return found


def of_neurons() -> set[str]:
    lif = LIF(LIFConfig())
    lif.compiled = bool(_library.library())
    return nodes(lif(torch.rand(4, 2, 16, 3, 3, requires_grad=True)))


def of_columns(*, compiled: bool = True) -> set[str]:
    matrix = torch.rand(2, 5, requires_grad=True)
    return nodes(gather_columns(matrix, torch.ones(1, 3).long(), compiled=compiled))


def of_swaps(monkeypatch: pytest.MonkeyPatch) -> str:
    """The path that runs."""
    for path in (status.COMPILED, status.EAGER):
        monkeypatch.setattr(swaps, f"_{path}", lambda *_, path=path: path)
    square = torch.rand(1, 3, 3)
    return str(swaps.swap_places(square, square, torch.zeros(1, 1, 2).long(), compiled=True))


def of_convolution(channels: int, *, stride: int = 1) -> set[str]:
    conv = Conv2d(channels, channels, 3, stride, 1, bias=False)
    conv.compiled = has_tiles()
    with torch.autocast("cpu", torch.bfloat16):
        return nodes(conv(torch.rand(2, channels, 3, 3)))


def reported(device: torch.device) -> dict[str, status.OperatorPath]:
    return {path.operator: path for path in status.operators(device)}


OURS, PYTORCHS = "_ConvolutionBackward", "ConvolutionBackward0"


def test_with_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = reported(CPU)
    assert ("_BnAddLifBackward" in of_neurons()) == (paths[status.BN_ADD_LIF].path == status.COMPILED)
    assert ("_GatherCompiledBackward" in of_columns()) == (paths[status.COLUMNS].path == status.COMPILED)
    assert "_GatherEagerBackward" in of_columns(compiled=False)
    assert (of_swaps(monkeypatch) == status.COMPILED) == (paths[status.SWAPS].path == status.COMPILED)
    gradient = paths[status.WEIGHT_GRADIENT]
    if gradient.path != status.TILES:
        assert PYTORCHS in of_convolution(64)
        return
    match = re.search(r"stride 1 or 2, channels a multiple of (\d+)", gradient.reason)
    assert match is not None
    channels = int(match[1])
    for stride in (1, 2):
        assert OURS in of_convolution(channels, stride=stride)
        assert PYTORCHS in of_convolution(channels // 2, stride=stride)


def test_without_a_compiler(no_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = reported(CPU)
    assert paths[status.BN_ADD_LIF].path == status.EAGER
    assert paths[status.WEIGHT_GRADIENT].path == status.PYTORCH
    assert paths[status.COLUMNS].path == status.PYTORCH
    assert paths[status.SWAPS].path == status.PYTORCH
    assert of_swaps(monkeypatch) == status.EAGER
    assert "_LifBackward" in of_neurons()
    assert "_GatherEagerBackward" in of_columns()
    assert PYTORCHS in of_convolution(64)
    for name in (status.BN_ADD_LIF, status.WEIGHT_GRADIENT, status.COLUMNS, status.SWAPS):
        assert "no C++ compiler found" in paths[name].reason


@pytest.mark.parametrize(
    ("listed", "reason"), [("flags: amx_bf16", "does not give it"), ("flags: avx512f", "lists no AMX bf16")]
)
def test_why_there_are_no_tiles(listed: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        reason = "compiled"

    monkeypatch.setattr(status, "library", Made)
    monkeypatch.setattr(status, "has_tiles", lambda: False)
    monkeypatch.setattr(status, "cpu_features", lambda: listed)
    paths = reported(CPU)
    assert paths[status.BN_ADD_LIF].path == status.COMPILED
    assert paths[status.WEIGHT_GRADIENT].path == status.PYTORCH
    assert paths[status.WEIGHT_GRADIENT].reason.endswith(reason)


def test_cuda_asks_for_no_compiled_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "library", None)
    monkeypatch.setattr(status, "has_tiles", None)
    paths = {name: path.path for name, path in reported(CUDA).items()}
    assert paths.pop(status.BN_ADD_LIF) == status.SPIKINGJELLY
    assert set(paths.values()) == {status.PYTORCH}
