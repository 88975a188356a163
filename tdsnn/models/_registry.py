"""All architectures by name; below everything that builds or loads a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tdsnn.registry import Registry

if TYPE_CHECKING:
    from tdsnn.models._base import Model

MODELS: Registry[Callable[..., Model]] = Registry("architecture", "tdsnn.models")
