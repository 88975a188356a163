"""All topographic metrics on the layers of a model, beside its twin and a control with shuffled positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from tdsnn.errors import GateError, MissingError, UsageError
from tdsnn.maps.stimuli import STIMULI, Shape
from tdsnn.maps.tables import refusals, summary, tables
from tdsnn.metrics._base import METRICS, Measurement, Metric
from tdsnn.progress import Progress, silent
from tdsnn.runtime import environment
from tdsnn.topography.responses import Responses, StimulusSet, record_responses
from tdsnn.topography.sheets import CorticalSheet

SHUFFLED = "positions shuffled"
"""Name of the control: the first model's responses on a sheet whose units changed places at random."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One metric on one layer of one subject; either a measurement or the reason why there is none."""

    subject: str
    layer: str
    metric: str
    measurement: Measurement | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Survey:
    """Everything that was measured, with what the captions must state; shown, it is its summary."""

    subjects: tuple[str, ...]
    """The model, its twin if it takes part, and the shuffled control."""
    sheets: Mapping[str, CorticalSheet]
    """Layer to the sheet on which all subjects were measured, but for the control."""
    shuffled: Mapping[str, CorticalSheet]
    entries: tuple[Entry, ...]
    shown: Mapping[str, int]
    """Stimulus set to the number of images shown."""
    missing: Mapping[str, str]
    """Stimulus set that this machine lacks, and why."""
    seed: int
    weights: Mapping[str, str] = field(default_factory=dict)
    """Subject to the sha256 of its weights, of those from a checkpoint."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """What it was computed with, as :func:`tdsnn.runtime.environment`."""

    def find(self, layer: str, metric: str) -> dict[str, Measurement]:
        """Subject to measurement, of those that have one."""
        return {
            entry.subject: entry.measurement
            for entry in self.entries
            if (entry.layer, entry.metric) == (layer, metric) and entry.measurement is not None
        }

    def sheet(self, subject: str, layer: str) -> CorticalSheet:
        """The sheet on which a subject was measured."""
        return (self.shuffled if subject == SHUFFLED else self.sheets)[layer]

    def document(self) -> dict[str, Any]:
        """Figures, curves and refusals as plain values; maps stay out, they are pictures."""
        return {
            "schema": 1,
            "subjects": list(self.subjects),
            "weights": dict(self.weights),
            "sheets": {layer: sheet.metadata() for layer, sheet in self.sheets.items()},
            "stimuli": dict(self.shown),
            "missing_stimuli": dict(self.missing),
            "seed": self.seed,
            "environment": dict(self.environment),
            "entries": [_document(entry) for entry in self.entries],
        }

    def text(self) -> str:
        """Every figure of every layer, and why others lack."""
        reasons = dict.fromkeys(entry.error for entry in self.entries if entry.error)
        return "\n\n".join(map(str, [*tables(self), *reasons]))

    def __repr__(self) -> str:
        return "\n".join(map(str, [summary(self), *refusals(self)]))


def survey(
    models: Mapping[str, nn.Module],
    sheets: Mapping[str, CorticalSheet],
    *,
    shape: Shape,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    weights: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Survey:
    """Measure models on the same sheets.

    Args:
        models: name to model, the one in question first; each has all layers of ``sheets``.
        sheets: layer to sheet.
        shape: (C, H, W) of the images that the models take.
        metrics: registered names; None for all. Those whose stimuli are not on this machine are left out and
            named in ``missing``, unless they were asked for.
        weights: name to the sha256 of the weights, for the document.

    Raises:
        UsageError: an unknown metric, no model, or no sheet.
        MissingError: the stimuli of a metric that was asked for are not on this machine.
    """
    if not models or not sheets:
        raise UsageError("A survey needs at least one model and one sheet.")
    names = METRICS.names() if metrics is None else metrics
    chosen = {name: METRICS.load(name)() for name in names}
    sets, missing = _stimuli(chosen.values(), shape, strict=metrics is not None)
    chosen = {name: metric for name, metric in chosen.items() if metric.stimuli in sets}
    shuffled = {layer: shuffle(sheet, seed=seed) for layer, sheet in sheets.items()}
    first = next(iter(models))
    device = next((weight.device for weight in models[first].parameters()), torch.device("cpu"))
    steps = (len(models) + 1) * len(sheets) * len(chosen)
    entries: list[Entry] = []
    for subject, model in models.items():
        for stimuli in sets.values():
            progress(len(entries), steps, f"{subject}: {stimuli.name}")
            answers = record_responses(model, stimuli, [sheet.spec for sheet in sheets.values()])
            wanted = {name: metric for name, metric in chosen.items() if metric.stimuli == stimuli.name}
            for layer, sheet in sheets.items():
                places = {subject: sheet} | ({SHUFFLED: shuffled[layer]} if subject == first else {})
                for entry in _measure(answers[layer], places, wanted, seed=seed):
                    entries.append(entry)
                    progress(len(entries), steps, f"{entry.subject}: {layer}, {entry.metric}")
    return Survey(
        subjects=(*models, SHUFFLED),
        sheets=sheets,
        shuffled=shuffled,
        entries=tuple(entries),
        shown={name: len(stimuli.images) for name, stimuli in sets.items()},
        missing=missing,
        seed=seed,
        weights=weights or {},
        environment=environment(device),
    )


def shuffle(sheet: CorticalSheet, *, seed: int) -> CorticalSheet:
    """The sheet with its units at each other's places, at random."""
    order = torch.randperm(len(sheet.positions), generator=torch.Generator().manual_seed(seed))
    return replace(sheet, positions=sheet.positions[order], preparation="shuffled")


def _measure(
    answers: Responses, sheets: Mapping[str, CorticalSheet], metrics: Mapping[str, Metric], *, seed: int
) -> Iterator[Entry]:
    """All metrics of one layer on the sheets of the subjects that these answers are for."""
    for subject, sheet in sheets.items():
        for name, metric in metrics.items():
            entry = Entry(subject=subject, layer=answers.layer, metric=name)
            try:
                yield replace(entry, measurement=metric.measure(answers, sheet, seed=seed))
            except GateError as error:
                yield replace(entry, error=error.message)


def _stimuli(
    metrics: Iterable[Metric], shape: Shape, *, strict: bool
) -> tuple[dict[str, StimulusSet], dict[str, str]]:
    sets, missing = {}, {}
    for name in dict.fromkeys(metric.stimuli for metric in metrics):
        try:
            sets[name] = STIMULI[name](shape)
        except MissingError as error:
            if strict:
                raise
            missing[name] = f"{error.message}\n{error.hint}"
    return sets, missing


def _document(entry: Entry) -> dict[str, Any]:
    place = {"subject": entry.subject, "layer": entry.layer, "metric": entry.metric}
    if entry.measurement is None:
        return {**place, "error": entry.error}
    return {
        **place,
        "figures": {key: asdict(figure) for key, figure in entry.measurement.figures.items()},
        "curves": {key: asdict(curve) for key, curve in entry.measurement.curves.items()},
    }
