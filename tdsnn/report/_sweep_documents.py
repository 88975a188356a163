"""Documents of sweeps: ``results.json`` of ``tdsnn-zoo sweep --release``, found, read and checked.

Official ones are ``benchmarks/results/sweeps/NAME.json``; ``tdsnn.sweep.release`` states what they hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdsnn import paths
from tdsnn.errors import MissingError, UsageError
from tdsnn.registry import suggest
from tdsnn.report.documents import read
from tdsnn.results import Figure

_SCHEMA = 1
_NAME = re.compile(r"[\w.-]{1,100}")
"""Entries and labels as sweeps write them: no markup of a terminal or a figure."""


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One training of a sweep, measured on the held-out images."""

    entry: str
    """Full name without the seed."""
    seed: int
    label: str
    settings: tuple[str, ...]
    weights: Mapping[str, float]
    """``alpha`` and ``beta`` of the spatial loss, where the settings state them."""
    accuracy: Figure
    """Percent, with its Wilson interval."""
    alignment: Mapping[str, float | None]
    """Layer to P(r, d), -1 to 1; None where too few units fire."""
    smoothness: Mapping[str, float] | None
    """Layer to category smoothness; None where it was not measured."""
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class SweepDocument:
    """All runs of one document."""

    sweep: str
    summary: str
    runs: tuple[SweepRun, ...]
    """In the order of the document; at least one."""


def find_sweep(name: str) -> SweepDocument:
    """The document with an official name, or at a path: whatever ends with ``.json`` or has a folder.

    Raises:
        UsageError: no official document of that name, or no such file.
        MissingError: there is no official document at all.
        IntegrityError: the document is damaged or about something else.
    """
    if name.endswith(".json") or Path(name).name != name:
        path = paths.expanded(name)
        if not path.is_file():
            raise UsageError(
                f"There is no file '{name}'.",
                hint="Write it from finished runs, beside their folders: tdsnn-zoo sweep FILE.toml --release",
            )
        return read(path, _sweep)
    folder = paths.bundled("benchmarks", "results", "sweeps")
    known = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not known:
        raise MissingError(
            f"There is no official document of a sweep, so none called '{name}'.",
            hint="Name a file: tdsnn-zoo report sweep runs/SWEEP/results.json",
        )
    if name not in known:
        raise suggest(name, known, kind="document of a sweep")
    return read(known[name], _sweep)


def _sweep(document: Mapping[str, Any]) -> SweepDocument:
    if document["schema"] != _SCHEMA or "sweep" not in document:
        raise ValueError(f"it is not a document of a sweep of schema {_SCHEMA}")
    runs = tuple(map(_run, document["runs"]))
    if not runs:
        raise ValueError("it holds no run")
    places = [(run.entry, run.label, run.seed) for run in runs]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice:
        raise ValueError(f"it holds two runs of entry '{twice[0]}', label '{twice[1]}', seed {twice[2]}")
    return SweepDocument(sweep=str(document["sweep"]), summary=str(document["summary"]), runs=runs)


def _run(record: Mapping[str, Any]) -> SweepRun:
    entry, label, seed = record["entry"], record["label"], record["seed"]
    for name in (entry, label or entry):
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' is no name of an entry or a label")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"the seed of '{entry}' is no whole number from 0 on")
    accuracy = Figure(**record["held_out_accuracy"])
    bounds = [_number(value) for value in (accuracy.low, accuracy.value, accuracy.high)]
    if bounds != sorted(bounds) or not 0 <= bounds[0] <= bounds[2] <= 100:
        raise ValueError(f"the accuracy of '{entry}' is no percentage inside its interval")
    if type(accuracy.n) is not int or accuracy.n < 1:
        raise ValueError(f"the accuracy of '{entry}' lacks its number of images")
    smoothness = record["category_smoothness"]
    return SweepRun(
        entry=entry,
        seed=seed,
        label=label,
        settings=tuple(map(str, record["settings"])),
        weights=dict(_weights(record["settings"])),
        accuracy=accuracy,
        alignment={
            layer: None if value is None else _number(value)
            for layer, value in record["alignment"]["rate"].items()
        },
        smoothness=(
            None if smoothness is None else {layer: _number(value) for layer, value in smoothness.items()}
        ),
        cpu_seconds=_number(record["cpu_seconds"]),
    )


def _weights(settings: Sequence[str]) -> Iterator[tuple[str, float]]:
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in ("topography.alpha", "topography.beta"):
            yield key.removeprefix("topography."), _number(float(value))


def _number(value: Any) -> float:
    """JSON of Python may hold NaN, and ``true`` counts as 1 there."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
