"""The contract of topographic metrics: from one layer's responses and its sheet to figures, curves and maps.

A metric is one file of this folder. Its docstring is its definition, with constants, units and source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from tdsnn.errors import GateError, UsageError
from tdsnn.registry import Registry
from tdsnn.topography.responses import Responses
from tdsnn.topography.sheets import CorticalSheet

METRICS: Registry[type[Metric]] = Registry("metric", "tdsnn.metrics", "tdsnn-zoo topo show --help")

MIN_ACTIVE = 20
"""Fewest units whose response varies over the stimuli for anything to be said about a layer."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number with its 95 % interval."""

    value: float
    low: float
    high: float
    unit: str
    n: int
    """What the interval is over: resamples' units, windows, images; the metric's docstring says which."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line with its 95 % band; all of length K."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    x_label: str
    """With the unit, e.g. ``distance (mm)``."""
    y_label: str


@dataclass(frozen=True, kw_only=True)
class UnitMap:
    """One value for each unit, to be drawn at its place on the sheet.

    Args:
        values: (U,): degrees in [0, 180) of a ``cyclic`` map, index of the level of a ``levels`` map, a
            signed number of a ``contrast`` map; NaN where the unit has none.
        strength: (U,) in [0, 1], how much the value means; drawn as size.
        levels: names of the levels of a ``levels`` map.
    """

    kind: Literal["cyclic", "levels", "contrast"]
    values: Tensor
    strength: Tensor
    label: str
    """With the unit, e.g. ``preferred orientation (degrees)``."""
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a metric found in one layer; keys are short names for tables and captions."""

    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    maps: Mapping[str, UnitMap] = field(default_factory=dict)


class Metric(ABC):
    """Base of every topographic metric; a plug-in implements :meth:`compute`."""

    stimuli: ClassVar[str]
    """Name of the stimulus set it needs: ``gratings`` or ``floc``."""
    direction: ClassVar[Literal["higher", "lower", "none"]]
    """Which way the first figure is more topographic."""
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Registered name: the file name of the plug-in."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def compute(self, responses: Responses, sheet: CorticalSheet, *, seed: int) -> Measurement:
        """Measure one layer whose responses were checked; equal seeds give equal numbers.

        Raises:
            GateError: the layer is too degenerate for this metric (a flat map scores as perfectly smooth).
        """

    def measure(self, responses: Responses, sheet: CorticalSheet, *, seed: int = 0) -> Measurement:
        """Check that the layer can be measured, then measure it.

        Raises:
            UsageError: another stimulus set, or a sheet of another shape.
            GateError: responses that are not finite, a silent layer, or too degenerate a map.
        """
        if responses.stimuli.name != self.stimuli:
            raise UsageError(
                f"The metric '{self.name}' needs responses to {self.stimuli}, "
                f"not to {responses.stimuli.name}."
            )
        if responses.shape != sheet.shape:
            raise UsageError(
                f"The sheet of '{sheet.layer}' is for outputs {sheet.shape}, but '{responses.layer}' gives "
                f"{responses.shape}.",
                hint="Give the model images of the size it was trained on, or build sheets for this size.",
            )
        if not bool(responses.rates.isfinite().all()):
            raise GateError(f"Some responses of '{responses.layer}' are not finite.")
        varying = int((responses.rates.amax(0) > responses.rates.amin(0)).sum())
        if varying < MIN_ACTIVE:
            raise GateError(
                f"Only {varying} of {responses.rates.shape[1]} units of '{responses.layer}' respond "
                f"differently to different {self.stimuli}; a map needs at least {MIN_ACTIVE}."
            )
        return self.compute(responses, sheet, seed=seed)
