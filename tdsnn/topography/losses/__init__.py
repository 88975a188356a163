"""Spatial losses, one per file, and what a loss is made of; a manifest chooses one by name."""

from tdsnn.schema import Table, Topography
from tdsnn.topography.losses._base import (
    SPATIAL_LOSSES,
    Sheeted,
    SpatialLoss,
    SpatialTerms,
    alpha_alone,
    read_options,
    weigh,
)
from tdsnn.topography.losses._draws import ClusterDraws

__all__ = [
    "SPATIAL_LOSSES",
    "ClusterDraws",
    "Sheeted",
    "SpatialLoss",
    "SpatialTerms",
    "Table",
    "Topography",
    "alpha_alone",
    "read_options",
    "weigh",
]
