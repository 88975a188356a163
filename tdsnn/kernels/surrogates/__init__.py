"""What stands in for the derivative of spikes in an attack; the network and its answers stay the same."""

from tdsnn.kernels.surrogates._base import BackwardPass, Memory, Surrogate
from tdsnn.kernels.surrogates._layer import surrogated
from tdsnn.kernels.surrogates._names import AS_TRAINED, read_surrogate, read_surrogates, spelled
from tdsnn.kernels.surrogates._rates import ClippedReLU
from tdsnn.kernels.surrogates._shapes import SHAPES, Shape

__all__ = [
    "AS_TRAINED",
    "SHAPES",
    "BackwardPass",
    "ClippedReLU",
    "Memory",
    "Shape",
    "Surrogate",
    "read_surrogate",
    "read_surrogates",
    "spelled",
    "surrogated",
]
