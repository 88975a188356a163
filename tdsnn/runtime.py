"""Device choice, determinism, and the record of what a number was computed with."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdsnn.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
PACKAGES = (
    "tdsnn-zoo",
    "torch",
    "spikingjelly",
    "numpy",
    "scipy",
    "safetensors",
    "huggingface_hub",
    "pyarrow",
)

_PACKAGE = Path(__file__).resolve().parent
_SOURCE = (".py", ".cpp", ".h", ".cu")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device that is named: ``cpu``, ``cuda``, ``cuda:0``, ..., or ``auto`` (CUDA if there is one).

    Raises:
        UsageError: no such device on this machine.
    """
    name = str(device)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    cuda = ["cuda", *(f"cuda:{index}" for index in range(available))] if available else []
    if name in ("cpu", "cpu:0", *cuda):
        return torch.device(name)
    if name.startswith("cuda"):
        raise UsageError(
            f"The device '{name}' is not on this machine, which has {available} CUDA devices.",
            hint="Use --device cpu, or leave --device out.",
        )
    raise UsageError(f"There is no device called '{name}'; known: {', '.join(DEVICES)} and cuda:INDEX.")


@contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Inside the block this is the GPU that is meant where none is named; libraries keep memory there."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield


@contextmanager
def fp32_products(*, tf32: bool) -> Iterator[None]:
    """How products and convolutions of fp32 numbers are computed inside the block; then all is as found.

    Args:
        tf32: whether they may be rounded to TF32, 10 bits of mantissa, where a GPU is faster with it; PyTorch
            allows that for convolutions. Otherwise they are computed in fp32.
    """
    kinds = _kinds_of_products()
    with ExitStack() as found:
        # Found first and so restored last, because the older names set these too.
        for kind in kinds:
            found.callback(setattr, kind, "fp32_precision", kind.fp32_precision)
        # Each set of names can no longer be read once somebody has set what only the other one can say.
        with suppress(RuntimeError):
            found.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        with suppress(RuntimeError):
            found.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = tf32
        for kind in kinds:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        yield


def _kinds_of_products() -> list[Any]:
    """What has an ``fp32_precision`` of its own, which is newer than PyTorch 2.8."""
    if not hasattr(torch.backends.cudnn, "conv"):
        return []
    return [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]


@contextmanager
def deterministic(*, tf32: bool = False) -> Iterator[None]:
    """Reproducible cuDNN kernels inside the block; afterwards the settings are as found.

    Args:
        tf32: as of :func:`fp32_products`; otherwise they compute in full precision.
    """
    cudnn = torch.backends.cudnn
    found = cudnn.benchmark, cudnn.deterministic
    # Not cudnn.flags, which fails where somebody has set the precision by its new name.
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with fp32_products(tf32=tf32):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = found


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, or the tensor itself if it is there; the CPU goes on before a GPU has it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # From other memory the driver copies twice, and waits for the first time.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Fetched:
    """Numbers (N,) on their way to the CPU; a GPU goes on with what it is asked meanwhile."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.detach().to("cpu", non_blocking=True)
        self._there: Any = None
        if numbers.device.type == "cuda":
            with torch.cuda.device(numbers.device):
                self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._there.record()

    def read(self) -> list[float]:
        """Wait for them."""
        if self._there is not None:
            self._there.synchronize()
        return [float(number) for number in self._numbers]


def environment(device: torch.device) -> dict[str, Any]:
    """What a number was computed with: versions, device, threads, platform, and the code's commit."""
    return {**machine(device), "device": str(device), "code": git_state()}


def machine(device: torch.device) -> dict[str, Any]:
    """The part of the environment that can change a number in its last digits."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        # Not which of several: equal ones give equal numbers.
        "device": device.type,
        "device_name": _device_name(device),
        "threads": torch.get_num_threads(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() or platform.machine()


def cpu_name() -> str:
    """The processor's model as the system calls it, e.g. ``AMD EPYC 9654``; empty if it is not known."""
    # ARM's list has no names; elsewhere there is no list.
    return cpu_info("model name").partition(":")[2].strip() or platform.processor()


def cpu_info(*keys: str) -> str:
    """The first line of the processor's description, as Linux lists it, that begins with one of the keys."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(keys)), "")


def git_state(folder: Path = _PACKAGE) -> dict[str, Any] | None:
    """Commit (40 hex) and whether tracked files differ from it; None outside a checkout of the project."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        # A wheel installed below somebody's own checkout is not under version control there.
        _git(folder, "ls-files", "--error-unmatch", "errors.py")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def code_digest(*, parts: Iterable[str], plug_ins: Iterable[str] = ()) -> str:
    """sha256 over the source files of parts of the package and over those of plug-ins from outside.

    Args:
        parts: names in the package, either folders (all modules below them) or modules (``"stats.py"``).
        plug_ins: dotted names of imported modules. Of one from outside, every source file of its top-level
            package counts, since it may use any of them; packages that :func:`machine` pins by their version,
            and this project's own, do not count.
    """
    files: set[Path] = set()
    for part in parts:
        path = _PACKAGE / part
        files |= _sources(path) if path.is_dir() else {path}
    for module in plug_ins:
        files |= _outside(module)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.suffix in _SOURCE}


@cache
def _outside(module: str) -> frozenset[Path]:
    """Source files of the top-level package of a module; none of a package that is known by its version."""
    top = module.partition(".")[0]
    if top in (_PACKAGE.name, *PACKAGES):
        return frozenset()
    package = sys.modules.get(top)
    if package is None or getattr(package, "__file__", None) is None:
        # A namespace shared by several distributions, or a module that was loaded from its file alone.
        package = sys.modules.get(module)
    file = getattr(package, "__file__", None)
    if file is None:
        return frozenset()
    path = Path(file).resolve()
    return frozenset(_sources(path.parent) if path.name == "__init__.py" else {path})


@cache
def _version(package: str) -> str | None:
    """Read once: looking a version up takes as long as a small cell, and every cell's key asks for all."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    # The package's own repository, whatever GIT_DIR a surrounding hook may have set.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=clean
    )
    return done.stdout.strip()
