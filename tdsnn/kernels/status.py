"""Which code runs each operator on a device, and why. For reports: nothing is dispatched by it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tdsnn.kernels._library import MAX_STEPS, NOTICE, cpu_features, library
from tdsnn.kernels.convolution import has_tiles
from tdsnn.kernels.gpu import _ready as gpu

BN_ADD_LIF = "normalisation, shortcut and LIF"
FORWARD = "convolution, forward"
INPUT_GRADIENT = "convolution, input gradient"
WEIGHT_GRADIENT = "convolution, weight gradient"
COLUMNS = "spatial loss, activity of the chosen units"
SWAPS = "position search, exchange of units"

COMPILED = "compiled"
EAGER = "eager"
TILES = "AMX tiles"
PYTORCH = "PyTorch"
SPIKINGJELLY = "PyTorch, then SpikingJelly's kernels"
TRITON = "Triton"

_NO_OTHER = "the project has no operator of its own for it"
_FOR_CPUS = "the compiled operator is for CPUs"


@dataclass(frozen=True, kw_only=True)
class OperatorPath:
    """What runs for one operator once ``compile_operators`` was called on a model, as training does."""

    operator: str
    device: str
    """``cpu`` or ``cuda``."""
    path: str
    reason: str


def operators(device: torch.device) -> tuple[OperatorPath, ...]:
    """Path of every operator on a device. The first call for a CPU compiles the operators, in about 30 s; the
    first one for a GPU tries the operators there."""
    on_cpu = device.type == "cpu"
    paths = {
        BN_ADD_LIF: _bn_add_lif_on_cpu() if on_cpu else _bn_add_lif_on_gpu(device),
        FORWARD: (PYTORCH, _NO_OTHER),
        INPUT_GRADIENT: (PYTORCH, _NO_OTHER),
        WEIGHT_GRADIENT: _weight_gradient_on_cpu() if on_cpu else (PYTORCH, _FOR_CPUS),
        COLUMNS: _library_on_cpu() if on_cpu else (PYTORCH, _FOR_CPUS),
        SWAPS: _library_on_cpu() if on_cpu else (PYTORCH, _FOR_CPUS),
    }
    return tuple(
        OperatorPath(operator=operator, device=device.type, path=path, reason=reason)
        for operator, (path, reason) in paths.items()
    )


def notice(device: torch.device) -> str:
    """What a command says before it compiles operators for a device."""
    if device.type == "cpu":
        return NOTICE
    path, reason = _bn_add_lif_on_gpu(device)
    if path == TRITON:
        return "Preparing Triton operators (seconds to a minute at the first batches) ..."
    return f"Triton operators do not run here: {reason}. Spiking layers run on: {path}."


def _bn_add_lif_on_cpu() -> tuple[str, str]:
    made = library()
    if not made:
        return EAGER, made.reason
    return COMPILED, f"for at most {MAX_STEPS} time steps; {made.reason}"


def _bn_add_lif_on_gpu(device: torch.device) -> tuple[str, str]:
    found = gpu.ready(device)
    if found:
        return TRITON, f"in fp32 and bf16, for at most {gpu.MOST_STEPS} time steps; {found.reason}"
    return EAGER if torch.version.hip else SPIKINGJELLY, found.reason


def _library_on_cpu() -> tuple[str, str]:
    made = library()
    return (COMPILED if made else PYTORCH), made.reason


def _weight_gradient_on_cpu() -> tuple[str, str]:
    if has_tiles():
        return TILES, "under bf16 autocast, for 3x3, stride 1 or 2, channels a multiple of 32; else PyTorch"
    if not library():
        return PYTORCH, library().reason
    if "amx_bf16" not in cpu_features().split():
        return PYTORCH, "the CPU lists no AMX bf16"
    return PYTORCH, "the CPU has AMX bf16, but the compiler or the system does not give it"
