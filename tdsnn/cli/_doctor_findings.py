"""What ``doctor`` finds out about this machine, and what of it is a problem."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import tdsnn
from tdsnn import hub, paths
from tdsnn.cli import _output
from tdsnn.data._base import DATASETS, cached_splits
from tdsnn.data._sources import HubRepo, Source
from tdsnn.errors import MissingError
from tdsnn.kernels._library import NOTICE, cpu_features, find_compiler
from tdsnn.runtime import cpu_name

_FEATURES = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 bf16": "avx512_bf16",
    "AMX bf16": "amx_bf16",
}
_GIB = 1 << 30
_LITTLE_GIB = 1.0
_ANSWER_SECONDS = 10

Report = dict[str, Any]
"""Plain values that JSON can hold; None is what could not be determined."""


def examine() -> Report:
    """All findings. Compiles the C++ operators if they are not yet, and asks the Hub."""
    import torch

    from tdsnn.runtime import environment

    _output.note("Asking the Hub (a few seconds at most) ...")
    connection = hub.connection()
    found = environment(torch.device("cpu"))
    return {
        "cpu": _cpu(),
        "compiler": _compiler(),
        "operators": _operators(),
        "cuda": _cuda(),
        "versions": {"python": found["python"], **found["packages"], "tdsnn-zoo": tdsnn.__version__},
        "platform": found["platform"],
        "code": found["code"],
        "folders": {
            "TDSNN_CACHE": _folder(paths.cache_dir()),
            "TDSNN_RUNS": _folder(paths.runs_dir()),
        },
        "datasets": [_dataset(name) for name in DATASETS.names()],
        "hub": asdict(connection),
    }


def _cpu() -> Report:
    import torch

    kind, _, listed = cpu_features().partition(":")
    known = kind.strip() in ("flags", "Features")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "name": cpu_name() or None,
        "features": {name: flag in listed.split() if known else None for name, flag in _FEATURES.items()},
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": torch.get_num_threads(),
    }


def _compiler() -> Report | None:
    """Path and version of the C++ compiler; None if there is none."""
    path = find_compiler()
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return {"path": path, "version": None}
    return {"path": path, "version": done.stdout.partition("\n")[0].strip() or None}


def _operators() -> list[Report]:
    import torch

    from tdsnn.kernels.status import operators

    if find_compiler() is not None:
        _output.note(NOTICE)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return [asdict(path) for device in devices for path in operators(torch.device(device))]


def _cuda() -> Report:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(index) for index in range(count)]
    return {
        "pytorch_built_for": torch.version.cuda,
        "devices": [
            {
                "name": device.name,
                "memory_gib": round(device.total_memory / _GIB, 2),
                "capability": f"{device.major}.{device.minor}",
            }
            for device in devices
        ],
    }


def _folder(path: Path) -> Report:
    """Whether files can be made in a folder, or, if it is not there yet, in the nearest one above it."""
    path = path.absolute()
    # Not Path.exists, which raises where a folder above may not be entered.
    nearest = next(folder for folder in (path, *path.parents) if os.access(folder, os.F_OK))
    problem = ""
    try:
        # Trying is the only proof: permission bits say nothing about root or a read-only disk.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        problem = error.strerror or str(error)
    return {
        "path": str(path),
        "writable": not problem,
        "problem": problem,
        "free_gib": round(shutil.disk_usage(nearest).free / _GIB, 2),
    }


def _dataset(name: str) -> Report:
    """Which splits are decoded, and which each source has on this machine."""
    dataset = DATASETS.load(name)

    def ask(source: Source) -> Report:
        missing: dict[str, dict[str, str]] = {}
        for split in dataset.splits:
            try:
                source.check(split)
            except MissingError as error:
                missing[split] = {"reason": error.message, "help": error.hint}
        return {
            "source": source.describe(next(iter(dataset.splits))),
            "remote": isinstance(source, HubRepo),
            "has": [split for split in dataset.splits if split not in missing],
            "missing": missing,
        }

    return {
        "name": name,
        "splits": list(dataset.splits),
        "streamed": dataset.streamed,
        "decoded": list(cached_splits(name)),
        "sources": [ask(source) for source in dataset.sources],
    }


def problems(report: Report) -> list[Report]:
    """What is missing: ``problem``, a sentence, and ``help``, commands or settings of which one may do."""
    return [{"problem": sentence, "help": remedies} for sentence, remedies in _problems(report)]


def _problems(report: Report) -> Iterator[tuple[str, list[str]]]:
    from tdsnn.kernels.status import EAGER

    for variable, folder in report["folders"].items():
        if not folder["writable"]:
            yield f"{folder['path']} cannot be written: {folder['problem']}.", [_elsewhere(variable)]
        elif folder["free_gib"] < _LITTLE_GIB:
            yield f"{folder['path']} has {folder['free_gib']:.1f} GiB left.", [_elsewhere(variable)]
    fire = report["operators"][0]
    if fire["path"] == EAGER:
        yield f"Spiking layers run on the slower eager path: {fire['reason']}.", [_to_compile(report)]
    if importlib.util.find_spec("accelerate") is None:
        yield "Training needs accelerate, which is not installed.", [paths.install_command("train")]
    connection = report["hub"]
    if connection["problem"] and not connection["offline"]:
        sentence = f"{connection['endpoint']} cannot be reached: {connection['problem']}."
        yield sentence, ["Connect to the network.", "Name a mirror: export HF_ENDPOINT=https://MIRROR"]
    for dataset in report["datasets"]:
        yield from _missing_splits(dataset, connection)


def _elsewhere(variable: str) -> str:
    return f"export {variable}=FOLDER"


def _to_compile(report: Report) -> str:
    if report["compiler"] is None:
        return "Debian and Ubuntu: apt-get install g++"
    if not report["folders"]["TDSNN_CACHE"]["writable"]:
        return _elsewhere("TDSNN_CACHE")
    return "Try another compiler: CXX=COMPILER tdsnn-zoo doctor"


def _missing_splits(dataset: Report, connection: Report) -> Iterator[tuple[str, list[str]]]:
    """Splits that are not decoded and that no source can give now."""
    sources = dataset["sources"]
    on_hub = any(source["remote"] for source in sources)
    there = {*dataset["decoded"], *(split for source in sources for split in source["has"])}
    missing = [split for split in dataset["splits"] if split not in there]
    if not missing or (on_hub and not connection["problem"]):
        return
    lacks = [source["missing"][split] for source in sources for split in missing]
    remedies = list(dict.fromkeys(lack["help"] for lack in lacks if lack["help"]))
    if on_hub:
        how = "unset HF_HUB_OFFLINE" if connection["offline"] else "connect to the network"
        remedies.append(f"From the Hub: {how}, then tdsnn-zoo data fetch {quote(dataset['name'])}")
    yield f"{dataset['name']} is not on this machine ({', '.join(missing)}).", remedies
