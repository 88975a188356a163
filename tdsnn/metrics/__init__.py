"""Metrics, one per file, and what a metric is given and gives."""

from tdsnn.metrics._base import METRICS, Curve, Figure, Measurement, Metric, UnitMap
from tdsnn.topography.responses import Responses, StimulusSet
from tdsnn.topography.sheets import CorticalSheet

__all__ = [
    "METRICS",
    "CorticalSheet",
    "Curve",
    "Figure",
    "Measurement",
    "Metric",
    "Responses",
    "StimulusSet",
    "UnitMap",
]
