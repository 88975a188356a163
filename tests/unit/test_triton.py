"""The Triton operators: right in Triton's interpreter, chosen where they run, within a GPU's registers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import needs_compiler, network, pictures
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tdsnn.errors import MissingError
from tdsnn.kernels import status
from tdsnn.kernels.bn_add_lif import supports
from tdsnn.kernels.gpu import _ready
from tdsnn.kernels.gpu._ready import MOST_STEPS, Readiness
from tdsnn.kernels.gpu._ready import _try as try_out
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models import _neurons
from tdsnn.models._neurons import LIF
from tdsnn.models._registry import MODELS
from tdsnn.runtime import deterministic

ROOT = Path(__file__).parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_triton = pytest.mark.skipif(
    _ready.installed_triton() is None, reason="Triton, and the ptxas that comes with it, are not installed"
)
IN_THE_INTERPRETER = (
    "tests/unit/test_kernels.py::test_layer_equals_its_parts",
    "tests/unit/test_kernels.py::test_half_precision_rounds_only_what_is_stored[1]",
    "tests/unit/test_kernels.py::test_moments_do_not_cancel",
    "tests/unit/test_kernels.py::test_moments_of_what_is_no_number_are_none",
    "tests/unit/test_operators.py::test_three_paths_of_a_layer_agree",
    "tests/unit/test_tiles.py",
    "tests/unit/test_surrogates.py::test_the_compiled_network_has_the_gradient_of_the_eager_one[assg]",
)


@needs_triton
@needs_compiler
def test_in_the_interpreter_they_pass_the_tests_of_the_compiled_ones() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "interpreted",
        "-p",
        "no:cacheprovider",
        *IN_THE_INTERPRETER,
    ]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": "tests"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_on_a_gpu_they_give_what_the_cpu_gives_and_the_same_bits_twice(training: bool) -> None:
    if not (found := _ready.ready(CUDA)):
        pytest.skip(found.reason)
    outcomes = []
    for device in ("cpu", "cuda", "cuda"):
        model, x = network("sresnet18").train(training).to(device), pictures(4).to(device).requires_grad_()
        assert device == "cpu" or model.compile_operators()
        with deterministic():
            logits = model(x)
            gradients = torch.autograd.grad(logits[:, 0].sum(), [x, *model.parameters()])
        outcomes.append([each.detach().cpu() for each in (logits, *gradients, *model.buffers())])
    expected, got, again = outcomes
    for one, two, three in zip(expected, got, again, strict=True):
        assert torch.equal(two, three)
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ready, "_found", {})


@pytest.fixture
def gpu(unasked: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two GPUs on which the operators run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(_ready, "installed_triton", lambda: "3.8.0")
    monkeypatch.setattr(_ready, "_try", lambda device: "")
    return monkeypatch


def test_ready_where_a_first_run_is_right(gpu: pytest.MonkeyPatch) -> None:
    assert _ready.ready(CUDA) == Readiness(True, "Triton 3.8.0")
    gpu.setattr(_ready, "_try", lambda device: "a first run is made once")
    assert _ready.ready(CUDA)


def test_a_gpu_is_examined_where_the_work_is_and_nowhere_else(gpu: pytest.MonkeyPatch) -> None:
    """The first one may be full or exclusively somebody else's."""
    gpu.setattr(_ready, "_try", lambda device: "" if device.index == 1 else "CUDA out of memory")
    assert _ready.ready(torch.device("cuda:1"))
    assert not _ready.ready(torch.device("cuda:0"))
    with FakeTensorMode():
        for index in (0, 1):
            assert supports(torch.empty(4, 6, device=f"cuda:{index}"), 4) == bool(index)
    (path, *_) = status.operators(torch.device("cuda:1"))
    assert path.path == status.TRITON


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("torch.version.hip", "7.0", "built for ROCm"),
        ("torch.cuda.is_available", lambda: False, "sees no CUDA device"),
        ("tdsnn.kernels.gpu._ready.installed_triton", lambda: None, "triton is not installed"),
        ("tdsnn.kernels.gpu._ready.installed_triton", lambda: "3.4.0", "Triton 3.4.0 is older than 3.5"),
        (
            "tdsnn.kernels.gpu._ready._try",
            lambda device: "a first run of them failed",
            "a first run of them failed",
        ),
    ],
)
def test_why_they_are_not_ready(place: str, value: Any, reason: str, gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(place, value)
    assert not _ready.ready(CUDA)
    assert reason in _ready.ready(CUDA).reason
    (layer, *_) = status.operators(torch.device("cuda"))
    assert layer.path == (status.EAGER if "ROCm" in reason else status.SPIKINGJELLY)
    assert reason in layer.reason
    assert reason in status.notice(torch.device("cuda"))
    with pytest.raises(MissingError, match=reason):
        _ready.operator("bn_add_lif", "forward")(torch.empty(1))


@needs_triton
def test_a_first_run_that_fails_is_a_reason_and_no_error(gpu: pytest.MonkeyPatch) -> None:
    """Compiled for a GPU the kernels do not take tensors of the CPU."""
    assert "a first run of them failed" in try_out(CPU)


@needs_triton
def test_an_old_gpu_is_a_reason(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert try_out(CPU) == "the GPU has compute capability 7.0, below 8.0"


@needs_triton
@needs_compiler
def test_a_first_run_has_to_give_what_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody has turned gradients off."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    operators = SimpleNamespace(
        forward=torch.ops.tdsnn.bn_add_lif.default, backward=torch.ops.tdsnn.bn_add_lif_backward.default
    )
    monkeypatch.setattr(_ready, "import_module", lambda _: operators)
    with torch.inference_mode():
        assert try_out(CPU) == ""
    operators.forward = lambda current, *_: (torch.zeros_like(current), None)
    assert "other spikes or gradients" in try_out(CPU)


def path(layer: LIF, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the three runs for a layer's current on CUDA."""
    ran: list[str] = []
    outputs = torch.empty_like(x).flatten(1), torch.empty_like(x[0]).flatten()
    for name in ("bn_add_lif", "lif", "_spikingjelly"):
        monkeypatch.setattr(_neurons, name, lambda *_, name=name, **__: (ran.append(name), outputs)[1])
    layer(x)
    (one,) = ran
    return one


@pytest.mark.parametrize(
    ("steps", "dtype", "ready", "hip", "expected"),
    [
        (MOST_STEPS, torch.bfloat16, True, None, "bn_add_lif"),
        (4, torch.float32, True, None, "bn_add_lif"),
        (MOST_STEPS + 1, torch.float32, True, None, "_spikingjelly"),
        (4, torch.float64, True, None, "_spikingjelly"),
        (4, torch.float32, False, None, "_spikingjelly"),
        (4, torch.float32, False, "7.0", "lif"),
    ],
)
def test_what_runs_on_a_gpu(
    steps: int,
    dtype: torch.dtype,
    ready: bool,
    hip: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_ready, "ready", lambda device: Readiness(ready, "for tests"))
    monkeypatch.setattr(torch.version, "hip", hip)
    layer = LIF(LIFConfig())
    layer.compiled = True
    with FakeTensorMode():
        x = torch.empty(steps, 6, dtype=dtype, device="cuda")
        assert supports(x, steps) == (expected == "bn_add_lif")
        assert path(layer, x, monkeypatch) == expected
        layer.compiled = False
        assert path(layer, x, monkeypatch) == ("lif" if hip else "_spikingjelly")


@pytest.mark.parametrize("ready", [True, False])
def test_a_model_elsewhere_asks_for_the_operators_of_its_device(
    ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ready, "ready", lambda device: Readiness(ready, "for tests"))
    monkeypatch.setattr("tdsnn.models._base.library", None)
    monkeypatch.setattr("tdsnn.models._base.has_tiles", None)
    model = MODELS.load("sresnet18")(width=4).to("meta")
    assert model.compile_operators() == ready
    assert {layer.compiled for layer in model.neurons} == {ready}
    (path, *_) = status.operators(torch.device("cuda"))
    assert (path.path == status.TRITON) == ready


@needs_triton
@pytest.mark.parametrize(
    ("case", "capability"),
    [
        ("training, T = 4, bf16", 80),
        ("training, T = 4, bf16", 90),
        ("attack with an adaptive surrogate, T = 4, fp32", 90),
        ("constant current, T = 4, fp32", 80),
        ("one neuron, T = 1, fp32", 90),
    ],
)
def test_kernels_stay_within_the_registers(case: str, capability: int) -> None:
    """All that the launches of a case compile, with what PyTorch's tensors say about types and alignment."""
    from benchmarks.speed import ptx

    kernels = {kernel.name: kernel for kernel in ptx.compiled(ptx.CASES[case], capability)}
    assert kernels.keys() >= {"gradients"}
    assert case.startswith("training, T = 4") <= (len(kernels) == 6)
    assert {kernel.spilled_bytes for kernel in kernels.values()} == {0}
    assert all(8 <= kernel.registers <= 128 for kernel in kernels.values()), kernels
