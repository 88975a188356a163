"""The C++ operators of this folder, compiled for this CPU at first use and cached."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tdsnn.errors import MissingError
from tdsnn.paths import cache_dir
from tdsnn.runtime import cpu_info

_FOLDER = Path(__file__).parent
_SOURCES = ("bn_add_lif.cpp", "columns.cpp", "convolution.cpp", "moments.cpp", "swaps.cpp")
MAX_STEPS = 64
"""Most time steps of one call of ``bn_add_lif``, which keeps its potentials in registers and on the stack."""
_FLAGS = (
    f"-DMAX_STEPS={MAX_STEPS}",
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fopenmp",
    "-w",
)
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_S = 300
NOTICE = "Preparing compiled operators (about 30 s the first time) ..."
"""What a command says before it asks for the library."""
STORAGE = {torch.float32: 0, torch.bfloat16: 1}
"""How tensors may be stored, and what the operators call it."""

_ADDRESS, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "tdsnn_gather_columns": (_ADDRESS,) * 4,
    "tdsnn_scatter_columns": (_ADDRESS, _ADDRESS, _ADDRESS, _LONG, _ADDRESS, _ADDRESS),
    "tdsnn_bn_add_lif": (_ADDRESS,) * 3,
    "tdsnn_bn_add_lif_backward": (_ADDRESS,) * 10,
    "tdsnn_weight_gradient_ready": (),
    "tdsnn_weight_gradient": (_ADDRESS,) * 4,
    "tdsnn_moments": (_ADDRESS, _INT, _LONG, _LONG, _INT, _ADDRESS, _ADDRESS),
    "tdsnn_swaps": (_ADDRESS,) * 7,
}


@dataclass(frozen=True)
class Library:
    """The loaded operators, or the reason why the eager path is used."""

    handle: ctypes.CDLL | None
    reason: str

    def __bool__(self) -> bool:
        return self.handle is not None

    def call(self, name: str, *arguments: Any) -> Any:
        """Run one operator; the arguments are converted as its signature says.

        Raises:
            MissingError: there are no operators here, e.g. for a model that was compiled on another machine.
        """
        if self.handle is None:
            raise MissingError(
                f"The compiled operators are not available: {self.reason}.",
                hint="See what is missing: tdsnn-zoo doctor",
            )
        return getattr(self.handle, name)(*arguments)


@cache
def library() -> Library:
    """Compile (about 30 s, once per machine and version) and load the operators."""
    compiler = find_compiler()
    if compiler is None:
        return Library(None, f"no C++ compiler found (looked for $CXX, {', '.join(_COMPILERS)})")
    try:
        path = cache_dir() / "kernels" / f"{_key(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        handle = ctypes.CDLL(str(path))
        for name, types in _SIGNATURES.items():
            getattr(handle, name).argtypes = types
        return Library(handle, f"compiled by {compiler}, cached as {path}")
    except (OSError, subprocess.SubprocessError) as error:
        return Library(None, f"{compiler} did not make the operators ({_last_line(error)})")


def find_compiler() -> str | None:
    """Path of the C++ compiler: ``$CXX``, else the first of the usual names."""
    names = (os.environ.get("CXX", ""), *_COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _key(compiler: str) -> str:
    """Digest of all that decides the machine code, so that a shared cache serves different CPUs."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts = [version, " ".join(_FLAGS).encode(), cpu_features().encode()]
    parts += [path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in (".cpp", ".h")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def cpu_features() -> str:
    """The CPU's instruction sets as Linux lists them; elsewhere its name."""
    return cpu_info("flags", "Features") or platform.processor()


def _compile(compiler: str, target: Path) -> None:
    """Write ``target`` in one step: processes that start together each compile, and the last one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        sources = [str(_FOLDER / name) for name in _SOURCES]
        subprocess.run(
            [compiler, *_FLAGS, "-o", str(made), *sources],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        made.replace(target)


def _last_line(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    return said.strip().splitlines()[-1]
