"""What a GPU's compiler makes of the Triton operators; needs no GPU, and says nothing of their speed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from benchmarks.speed._measure import Row, Settings
from tdsnn.errors import TdsnnError
from tdsnn.kernels.gpu.bn_add_lif import adaptive_backward, backward, forward
from tdsnn.kernels.gpu.moments import moments

CAPABILITIES = (80, 90)
"""Ampere and Hopper, as in ``sm_90``."""
_ROWS, _CHANNELS = 1000, 64
_EVERYTHING = (True,) * 7
_PLAIN = (None, None, None, None, 0.0, False)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What one kernel takes of a GPU."""

    name: str
    registers: int
    """Of each thread."""
    spilled_bytes: int
    """Of each thread, stored and loaded for want of registers."""
    shared_bytes: int
    """Of each block."""


def run(settings: Settings) -> list[Row]:
    """Every kernel of every case, for each kind of GPU."""
    return [
        Row(
            name=f"{kernel.name}, {case}, sm_{capability}",
            unit="registers",
            ours=kernel.registers,
            details={"spilled_bytes": kernel.spilled_bytes, "shared_bytes": kernel.shared_bytes},
        )
        for capability in CAPABILITIES
        for case, launch in CASES.items()
        for kernel in compiled(launch, capability)
    ]


def compiled(launch: Callable[[], object], capability: int) -> list[Kernel]:
    """The kernels that a call would launch on a GPU, compiled for it anew; nothing is run.

    Raises:
        TdsnnError: ptxas, which comes with Triton, refuses one.
    """
    made: list[tuple[str, Any]] = []
    compile_only = JITFunction.run

    def note(self: Any, *arguments: Any, warmup: bool, **named: Any) -> None:
        made.append((self.fn.__name__, compile_only(self, *arguments, warmup=True, **named)))

    with _absent_gpu(capability), mock.patch.object(JITFunction, "run", note):
        launch()
        return [_resources(name, kernel, capability) for name, kernel in made]


class _AbsentGPU:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextmanager
def _absent_gpu(capability: int) -> Iterator[None]:
    with (
        tempfile.TemporaryDirectory() as folder,
        triton.knobs.cache.scope(),
        mock.patch.object(driver, "_active", _AbsentGPU(capability)),
    ):
        triton.knobs.cache.dir = folder
        yield


def _resources(name: str, kernel: Any, capability: int) -> Kernel:
    suffix = "a" if capability == 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"], encoding="ascii")
        command = [triton.knobs.nvidia.ptxas.path, "-v", f"-arch=sm_{capability}{suffix}", str(source)]
        done = subprocess.run(
            [*command, "-o", str(source.with_suffix(".cubin"))], capture_output=True, text=True, check=False
        )
    registers = re.search(r"Used (\d+) registers", done.stderr)
    if done.returncode or registers is None:
        raise TdsnnError(f"ptxas does not take the kernel '{name}': {done.stderr.strip()}")
    spilled = re.findall(r"(\d+) bytes spill", done.stderr)
    return Kernel(
        name=name,
        registers=int(registers[1]),
        spilled_bytes=sum(map(int, spilled)),
        shared_bytes=int(kernel.metadata.shared),
    )


def _layer(steps: int, dtype: torch.dtype, *, of_batch: bool, neuron: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments of ``bn_add_lif`` with a normalised shortcut and a state."""
    x, channel = torch.empty(steps, _ROWS, _CHANNELS, dtype=dtype), torch.empty(_CHANNELS)
    norm = (channel, channel, channel, channel, 1e-5, of_batch)
    return (x, *norm, x, *norm, torch.empty(_ROWS, _CHANNELS), steps, True, *neuron)


def _training() -> None:
    arguments = _layer(4, torch.bfloat16, of_batch=True, neuron=(2.0, 1.0, 0.0, True, True, 2.0))
    moments(arguments[0].flatten(0, 1))
    forward(*arguments)
    backward(arguments[0], torch.empty(_ROWS, _CHANNELS), _EVERYTHING, *arguments)


def _most_steps() -> None:
    arguments = _layer(16, torch.float32, of_batch=True, neuron=(1.5, 0.5, None, False, False, 1.0))
    forward(*arguments)
    backward(arguments[0], torch.empty(_ROWS, _CHANNELS), _EVERYTHING, *arguments)


def _attack() -> None:
    current = torch.empty(4, _ROWS, _CHANNELS)
    arguments = (current, *_PLAIN, None, *_PLAIN, None, 4, False, 2.0, 1.0, 0.0, True, True, 0.4)
    wanted = (True, *(False,) * 6)
    adaptive_backward(current, None, wanted, torch.empty_like(current), torch.empty_like(current), *arguments)


def _constant_current() -> None:
    current, channel = torch.empty(_ROWS, _CHANNELS), torch.empty(_CHANNELS)
    norm = (channel, channel, channel, channel, 1e-5, False)
    neuron = (2.0, 1.0, 0.0, True, True, 2.0)
    arguments = (current, *norm, None, *_PLAIN, None, 4, False, *neuron)
    forward(*arguments)
    backward(torch.empty(4, _ROWS, _CHANNELS), None, (True, *(False,) * 6), *arguments)


def _one_neuron() -> None:
    current, channel = torch.empty(1, 1, 1), torch.empty(1)
    norm = (channel, channel, channel, channel, 1e-5, True)
    arguments = (current, *norm, None, *_PLAIN, None, 1, False, 2.0, 1.0, 0.0, False, True, 2.0)
    moments(current[0])
    forward(*arguments)
    backward(current, None, (True, False, False, True, True, False, False), *arguments)


CASES: Mapping[str, Callable[[], object]] = {
    "training, T = 4, bf16": _training,
    "training, T = 16, fp32, soft reset": _most_steps,
    "attack with an adaptive surrogate, T = 4, fp32": _attack,
    "constant current, T = 4, fp32": _constant_current,
    "one neuron, T = 1, fp32": _one_neuron,
}
"""Calls of the operators that differ in what is compiled."""
