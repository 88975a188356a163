"""Architectures, one family per file, and what an architecture is made of."""

from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import MODELS, Model
from tdsnn.models._neurons import LIF, State

__all__ = ["LIF", "MODELS", "LIFConfig", "Model", "State"]
