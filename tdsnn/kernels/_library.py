"""The C++ operators of this folder, compiled for this CPU at first use and cached."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tdsnn.errors import MissingError, TdsnnError
from tdsnn.files import exclusive, sha256_of
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
_ROOT = 0
"""Whose files everybody trusts."""
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
        folder, key = private_folder(), _key(compiler)
        path = find_built(folder, key) or _build(compiler, folder, key)
        handle = ctypes.CDLL(str(path))
        for name, types in _SIGNATURES.items():
            getattr(handle, name).argtypes = types
        return Library(handle, f"compiled by {compiler}, cached as {path}")
    except (OSError, TdsnnError, subprocess.SubprocessError) as error:
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


def private_folder() -> Path:
    """Where this user's libraries are: each user of a shared cache builds and loads their own, because what
    is loaded runs."""
    return cache_dir() / "kernels" / f"user-{_user()}"


def find_built(folder: Path, key: str) -> Path | None:
    """The library with this key that is what was built; one that may not be is removed, and said so.

    The name has the SHA-256 of the content, so that a file which was cut off is never loaded.
    """
    for path in sorted(folder.glob(f"{key}.*.so")):
        reason = _doubt(folder) or _doubt(path)
        if not reason and path.suffixes[-2] != f".{sha256_of(path)}":
            reason = "its content was changed"
        if not reason:
            return path
        warnings.warn(f"'{path}' is not loaded but built again: {reason}.", stacklevel=2)
        with suppress(OSError):
            path.unlink()
    return None


def _doubt(path: Path) -> str:
    """Why somebody else may have put this here; empty if nobody can have."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"'{path}' is a link"
    if found.st_uid not in (_user(), _ROOT):
        return f"'{path}' belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write '{path}'"
    return ""


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else _ROOT


def _build(compiler: str, folder: Path, key: str) -> Path:
    """Compile, unless another process does: of those that start together one works and the others wait."""
    with exclusive(folder):
        folder.chmod(stat.S_IRWXU)
        return find_built(folder, key) or _compile(compiler, folder, key)


def _compile(compiler: str, folder: Path, key: str) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / "operators.so"
        sources = [str(_FOLDER / name) for name in _SOURCES]
        subprocess.run(
            [compiler, *_FLAGS, "-o", str(made), *sources],
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        made.chmod(stat.S_IRWXU)
        return made.replace(folder / f"{key}.{sha256_of(made)}.so")


def _last_line(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    return said.strip().splitlines()[-1]
