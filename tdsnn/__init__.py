"""Model zoo and benchmark suite for topographic deep spiking neural networks.

Public names are resolved lazily, so ``import tdsnn`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdsnn.manifest import list_models
    from tdsnn.zoo import load

__all__ = ["__version__", "list_models", "load"]
__version__ = "0.1.0"

_HOMES = {"list_models": "tdsnn.manifest", "load": "tdsnn.zoo"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tdsnn' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
