"""Spatial losses, one per file, and what a loss is made of; a manifest chooses one by name."""

from tdsnn.schema import Table, Topography
from tdsnn.topography.losses._base import (
    SPATIAL_LOSSES,
    Sheeted,
    SpatialLoss,
    SpatialTerms,
    alpha_alone,
    draw_clusters,
    read_options,
    weigh,
)

__all__ = [
    "SPATIAL_LOSSES",
    "Sheeted",
    "SpatialLoss",
    "SpatialTerms",
    "Table",
    "Topography",
    "alpha_alone",
    "draw_clusters",
    "read_options",
    "weigh",
]
