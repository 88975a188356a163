"""Whether the operators of this folder run here. Imports no Triton, which many machines lack."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from tdsnn.errors import MissingError
from tdsnn.kernels.lif import LIFConfig, lif

MOST_STEPS = 16
"""Most time steps of one call of ``bn_add_lif``, which keeps its potentials in registers."""
OLDEST_TRITON = (3, 5)
"""Earlier ones were not tried."""
_LEAST_CAPABILITY = (8, 0)
"""Before it there is no arithmetic in bf16."""


_FAILURES = (RuntimeError, ValueError, AssertionError, OSError, subprocess.SubprocessError)
"""What PyTorch, Triton and the compilers that it calls raise where a device or a program is missing."""


@dataclass(frozen=True)
class Readiness:
    """Whether the operators run, and what with or why not."""

    ready: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ready


_found: dict[int | None, Readiness] = {}
"""By number of the GPU."""


def ready(device: torch.device) -> Readiness:
    """Whether the operators may be called on a GPU; the answer, of a small run there, holds for the process.

    Other GPUs are left alone: they may be full, or too old.
    """
    # No functools.cache: torch.compile looks through that and would trace the whole examination.
    if device.index not in _found:
        _found[device.index] = _examine(device)
    return _found[device.index]


def operator(module: str, function: str) -> Callable[..., Any]:
    """A function of a module of this folder, which is imported when it is called.

    Raises, when called:
        MissingError: the operators do not run here.
    """

    def call(first: Tensor, *arguments: Any) -> Any:
        if not (found := ready(first.device)):
            raise MissingError(
                f"The Triton operators are not available: {found.reason}.",
                hint="See what is missing: tdsnn-zoo doctor",
            )
        return getattr(import_module(f"tdsnn.kernels.gpu.{module}"), function)(first, *arguments)

    return call


def installed_triton() -> str | None:
    """Version of Triton; None if it is not installed."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _examine(device: torch.device) -> Readiness:
    if torch.version.hip is not None:
        return Readiness(False, "this PyTorch is built for ROCm, and they are for NVIDIA's GPUs")
    if not torch.cuda.is_available():
        return Readiness(False, "PyTorch sees no CUDA device")
    triton = installed_triton()
    if triton is None:
        return Readiness(False, "the package triton is not installed")
    if tuple(int(part) for part in triton.split(".")[:2]) < OLDEST_TRITON:
        return Readiness(
            False, f"Triton {triton} is older than {_dotted(OLDEST_TRITON)}, the oldest that was tried"
        )
    problem = _try(device)
    return Readiness(not problem, problem or f"Triton {triton}")


def _try(device: torch.device) -> str:
    """What is wrong with a GPU, or a small run beside PyTorch's own operations; empty if nothing is."""
    try:
        from triton.errors import TritonError
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    try:
        capability = torch.cuda.get_device_capability(device)
        if capability < _LEAST_CAPABILITY:
            return f"the GPU has compute capability {_dotted(capability)}, below {_dotted(_LEAST_CAPABILITY)}"
        # Whoever asks first may have turned gradients off.
        with torch.inference_mode(False), torch.enable_grad():
            equal = _gives_what_pytorch_does(torch.linspace(-2, 5, 4 * 90, device=device).view(4, 90))
    except (*_FAILURES, TritonError) as error:
        said = str(error).strip().splitlines()
        return f"a first run of them failed ({said[-1] if said else type(error).__name__})"
    return "" if equal else "a first run of them gave other spikes or gradients than PyTorch"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _gives_what_pytorch_does(current_TM: Tensor) -> bool:
    """Whether spikes, and gradients at the currents, are those of the eager path."""
    operators = import_module("tdsnn.kernels.gpu.bn_add_lif")
    config, steps = LIFConfig(), len(current_TM)
    leaf = current_TM.clone().requires_grad_()
    expected, _ = lif(leaf, config)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    plain = (None, None, None, None, 0.0, False)
    neuron = (config.tau, config.v_threshold, config.v_reset, config.decay_input, config.detach_reset)
    current = current_TM.view(steps, -1, 3)
    arguments = (current, *plain, None, *plain, None, steps, False, *neuron, config.surrogate_alpha)
    spikes, _ = operators.forward(*arguments)
    found, *_ = operators.backward(torch.ones_like(current), None, [True, *[False] * 6], *arguments)
    return torch.equal(spikes.flatten(1), expected) and torch.allclose(found.flatten(1), gradient)
