"""Benchmark results: the schema, and a folder that keeps finished cells so that a run can go on.

Schema 1 of ``result.json``::

    schema       1
    settings     what was asked for: dataset and its digest, n, seed, dtype, attacks and their settings
    settings_digest
    models       one record for each model: checkpoint sha256, source, T, surrogate, twin
    cells        one record for each (model, attack, eps), in table order
    comparisons  paired differences, topographic minus twin
    provenance   everything that may differ between two runs with equal numbers: dates, wall time,
                 versions, device, code state

Everything outside ``provenance`` is equal for equal settings on one machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tdsnn.errors import IntegrityError
from tdsnn.files import write_atomic
from tdsnn.stats import PairedDifference, wilson

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number that may be published: never without unit, n and 95 % interval."""

    value: float
    low: float
    high: float
    unit: str
    n: int
    method: str
    """How the interval was computed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one model: its accuracy without attack, or under one attack of one strength."""

    key: str
    """Digest of everything that affects the numbers."""
    model: str
    attack: str
    """Registered name; ``clean`` without attack; ``worst case`` for the union of attacks."""
    eps_255: float
    """Strength in units of 1/255."""
    norm: str | None
    settings: Mapping[str, Any]
    accuracy: Figure | None
    """Percent of all n images; None in an error cell."""
    clean_correct: int | None
    survivors: int | None
    error: str | None = None
    """Why there is no number."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of ``model`` minus accuracy of ``twin`` on the same images."""

    model: str
    twin: str
    attack: str
    eps_255: float
    difference: Figure
    """Percentage points."""
    only_model: int
    only_twin: int
    p_mcnemar: float
    p_holm: float
    """Adjusted over all comparisons of the result."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark run; see the module's docstring for the JSON."""

    settings: Mapping[str, Any]
    models: tuple[Mapping[str, Any], ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    provenance: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "schema": SCHEMA,
            "settings": dict(self.settings),
            "settings_digest": digest_of(self.settings),
            "models": [dict(model) for model in self.models],
            "cells": [asdict(cell) for cell in self.cells],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "provenance": dict(self.provenance),
        }


def accuracy_figure(right: int, n: int) -> Figure:
    """Accuracy in percent with its Wilson interval."""
    interval = wilson(right, n)
    return Figure(
        value=100 * right / n,
        low=100 * interval.low,
        high=100 * interval.high,
        unit="%",
        n=n,
        method="Wilson score, 95 %",
    )


def difference_figure(found: PairedDifference) -> Figure:
    """A paired difference of accuracies in percentage points with its Tango interval."""
    return Figure(
        value=100 * found.difference,
        low=100 * found.interval.low,
        high=100 * found.interval.high,
        unit="percentage points",
        n=found.n,
        method="Tango score for paired proportions, 95 %",
    )


def digest_of(document: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of a finished cell and how long they took."""

    right: NDArray[np.bool_]
    """(n,) whether each image is still classified correctly."""
    seconds: float


class ResultFolder:
    """A folder with one file for each finished cell, and the result at the end.

    ``cells/KEY.safetensors`` holds the verdicts; a key is never written twice with other content, so an
    interrupted run goes on at its next cell. ``result.json`` and ``samples.safetensors`` appear at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_cell(self, key: str, n: int) -> Verdicts | None:
        """Verdicts of a finished cell, None if there is none yet.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._cell(key)
        if not path.is_file():
            return None
        try:
            arrays = load(path.read_bytes())
            verdicts = Verdicts(right=arrays["right"].astype(bool), seconds=float(arrays["seconds"][0]))
        except (SafetensorError, KeyError, IndexError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        if verdicts.right.shape != (n,):
            raise _damaged(path, f"it holds shape {verdicts.right.shape}, not ({n},)")
        return verdicts

    def write_cell(self, key: str, verdicts: Verdicts) -> None:
        """Keep the verdicts of a finished cell."""
        arrays = {"right": verdicts.right.astype(np.uint8), "seconds": np.array([verdicts.seconds])}
        write_atomic(self._cell(key), save(arrays))

    def write_result(self, result: Result, verdicts: Mapping[str, NDArray[np.bool_]]) -> None:
        """Write ``result.json`` and, with one (n,) 0/1 array for each cell, ``samples.safetensors``.

        Args:
            verdicts: cell key to (n,) bool. The arrays are named ``MODEL/ATTACK/EPS``; ``indices`` says which
                images of the split they are about.
        """
        n = int(result.settings["n"])
        arrays: dict[str, NDArray[Any]] = {"indices": np.arange(n, dtype=np.int64)}
        for cell in result.cells:
            if cell.key in verdicts:
                name = f"{cell.model}/{cell.attack}/{cell.eps_255:g}"
                arrays[name] = verdicts[cell.key].astype(np.uint8)
        write_atomic(self.folder / "samples.safetensors", save(arrays))
        text = json.dumps(result.document(), indent=2, allow_nan=False) + "\n"
        write_atomic(self.folder / "result.json", text.encode())

    def _cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.safetensors"


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"The stored cell {path} cannot be read: {reason}.", hint="Recompute it: add --fresh to the command."
    )
