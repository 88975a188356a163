"""Model zoo and benchmark suite for topographic deep spiking neural networks.

Public names are resolved when they are first used, so ``import tdsnn`` does not import torch. What a plug-in
needs is in the packages that its entry points name: ``tdsnn.models``, ``tdsnn.attacks``, ``tdsnn.metrics``,
``tdsnn.temporal``, ``tdsnn.data``, ``tdsnn.tasks``, ``tdsnn.topography.losses``,
``tdsnn.exporting.formats``; errors are in ``tdsnn.errors``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdsnn.benchmark.api import bench
    from tdsnn.benchmark.comparing import compare
    from tdsnn.exporting.api import export
    from tdsnn.inference import early_exit, early_exit_curve, stream
    from tdsnn.manifest import list_models
    from tdsnn.maps.api import topo
    from tdsnn.models._adapted import adapt
    from tdsnn.training.session import train
    from tdsnn.zoo import load, save

__all__ = [
    "__version__",
    "adapt",
    "bench",
    "compare",
    "early_exit",
    "early_exit_curve",
    "export",
    "list_models",
    "load",
    "save",
    "stream",
    "topo",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "adapt": "tdsnn.models._adapted",
    "bench": "tdsnn.benchmark.api",
    "compare": "tdsnn.benchmark.comparing",
    "early_exit": "tdsnn.inference",
    "early_exit_curve": "tdsnn.inference",
    "export": "tdsnn.exporting.api",
    "list_models": "tdsnn.manifest",
    "load": "tdsnn.zoo",
    "save": "tdsnn.zoo",
    "stream": "tdsnn.inference",
    "topo": "tdsnn.maps.api",
    "train": "tdsnn.training.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tdsnn' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
