"""The contract of time metrics: from a network and labelled images to figures, curves and values per image.

A metric is one file of this folder. Its docstring is its definition, with constants, units and source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._gradient import inference
from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.metrics._base import Curve, Figure
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.registry import Registry
from tdsnn.results import Key as Key  # metrics name what they found with it
from tdsnn.settings import Configured, as_typed
from tdsnn.temporal._spikes import spiking_layers_of

TIME_METRICS: Registry[type[TimeMetric]] = Registry("time metric", "tdsnn.temporal", "tdsnn-zoo bench --help")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network and the images that it is measured on."""

    model: Model | Adapted
    """In eval mode, stateless between calls."""
    split: Split
    n: int
    """The first n images of the split are used."""
    batch_size: int = 100
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dataset: str = ""
    """Registered name of the dataset, for its held-out images; empty for images of the user's own."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (N, C, H, W) in [0, 1] and targets (N,) on the device, in the order of the split."""
        for start in range(0, self.n, self.batch_size):
            images, labels = self.split.take(slice(start, min(start + self.batch_size, self.n)))
            yield images.to(self.device), labels.to(self.device)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a metric found in one network. Keys are texts of :class:`Key`, the most telling first."""

    figures: Mapping[str, Figure]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    samples: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """(n,) one finite value for each image, to set the network beside its twin. Each key is one of
    ``figures``, whose value is the mean of the samples and whose unit is theirs."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """What cannot be said of this network, and why: a key, or the words of a table, to one sentence."""
    conditions: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Under what it was measured, besides the settings: device, threads, an energy model."""


@dataclass(frozen=True, kw_only=True)
class TimeMetric(Configured, ABC):
    """Base of every time metric. A plug-in is a frozen dataclass whose fields are its settings, as those of
    an attack are; it implements :meth:`compute`."""

    noun: ClassVar[str] = "time metric"
    needs_spikes: ClassVar[bool] = False
    """Whether it says nothing of a network without spikes."""
    repeatable: ClassVar[bool] = True
    """Whether equal seeds give equal numbers; not so for what is measured with a clock."""

    @property
    def variant(self) -> str:
        """What differs from the metric's defaults, as it is typed; empty if nothing does."""
        return as_typed(self.changed)

    @property
    def modules(self) -> frozenset[str]:
        """Dotted names of the modules whose code it runs, for those of other packages."""
        return frozenset({type(self).__module__})

    def objection(self, model: Model | Adapted) -> str | None:
        """Why this metric says nothing of a model, one sentence; None if it does."""
        if self.needs_spikes and not spiking_layers_of(model):
            name = title_of(model)
            return f"{name} has no layer that is known to spike, so {self.name} says nothing of it."
        return None

    def check(self, model: Model | Adapted) -> None:
        """Refuse settings that do not fit a model, before anything is measured.

        Raises:
            UsageError: e.g. a layer that it does not have.
        """

    @abstractmethod
    def compute(self, subject: Subject) -> Measurement:
        """Measure a network that :meth:`objection` and :meth:`check` let pass. Draws come from the seed of
        the subject, and no number depends on its batch size beyond rounding. The network is in eval mode,
        its parameters frozen; autograd is as it was found.

        Raises:
            GateError: the network is too degenerate for this metric.
        """

    def measure(self, subject: Subject) -> Measurement:
        """Check that the network can be measured, then measure it; it is left as it was found.

        Raises:
            GateError: the metric says nothing of this network, or a number is not finite.
            UsageError: a setting that does not fit it.
        """
        if objection := self.objection(subject.model):
            raise GateError(objection)
        self.check(subject.model)
        with inference(subject.model):
            found = self.compute(subject)
        _require_finite(self.name, found)
        return found


def title_of(model: Model | Adapted) -> str:
    """What a network is called in a sentence."""
    return model.name if isinstance(model, Adapted) else model.architecture


def _require_finite(name: str, found: Measurement) -> None:
    for key, figure in found.figures.items():
        if not torch.isfinite(torch.tensor([figure.value, figure.low, figure.high])).all():
            raise GateError(f"The figure '{key}' of {name} is not finite.")
    for key, values in found.samples.items():
        if not torch.isfinite(torch.as_tensor(values)).all():
            raise GateError(f"Some values of '{key}' of {name} are not finite.")
