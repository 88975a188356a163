"""Architectures, one family per file, and what an architecture is made of."""

from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State
from tdsnn.models._registry import MODELS
from tdsnn.topography.layouts import SheetSpec

__all__ = ["LIF", "MODELS", "LIFConfig", "Model", "SheetSpec", "State"]
