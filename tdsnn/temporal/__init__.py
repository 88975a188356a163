"""Metrics of time, one per file, and what such a metric is given and gives."""

from tdsnn.metrics._base import Curve, Figure
from tdsnn.temporal._base import TIME_METRICS, Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._figures import over_images, proportion
from tdsnn.temporal._spec import time_metrics
from tdsnn.temporal._spikes import logits_over_time, record_spikes, spiking_layers_of
from tdsnn.temporal._steps import Layers, Steps, layer_names, steps_of

__all__ = [
    "TIME_METRICS",
    "Curve",
    "Figure",
    "Key",
    "Layers",
    "Measurement",
    "Steps",
    "Subject",
    "TimeMetric",
    "layer_names",
    "logits_over_time",
    "over_images",
    "proportion",
    "record_spikes",
    "spiking_layers_of",
    "steps_of",
    "time_metrics",
]
