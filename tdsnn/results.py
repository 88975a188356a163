"""Benchmark results: the schema, and a folder that keeps finished cells so that a run can go on.

Schema 1 of ``result.json``::

    schema       1
    settings     what was asked for: dataset and its digest, n, seed, dtype, attacks and their settings
    settings_digest
    models       one record for each model: checkpoint sha256, T, surrogate, twin, gates, signs of masking
    cells        one record for each (model, attack, variant, eps), in table order
    radii        for each model and norm what is left of each class at each radius; absent in older documents
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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tdsnn.errors import IntegrityError
from tdsnn.files import read_json, write_atomic
from tdsnn.result_tables import tables
from tdsnn.stats import PairedDifference, wilson
from tdsnn.table import titled

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


class Place(NamedTuple):
    """Which row of a table a cell is in."""

    attack: str
    variant: str
    eps_255: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one model: its accuracy without attack, or under one attack of one strength."""

    key: str
    """Digest of everything that affects the numbers."""
    model: str
    attack: str
    """Registered name; ``clean`` without attack; ``worst case`` for the union of attacks."""
    variant: str = ""
    """Settings and norm that differ from the attack's defaults, as they are typed."""
    eps_255: float
    """Strength in units of 1/255, in L0 of values."""
    norm: str | None
    settings: Mapping[str, Any]
    accuracy: Figure | None
    """Percent of all n images; None in an error cell."""
    clean_correct: int | None
    survivors: int | None
    entered: int | None = None
    """How many images were attacked, if those that attacks before had fooled were left out: the accuracy is
    then that of all of them together. 0: the attack has no meaning for the model. None: all that are right
    without attack were."""
    error: str | None = None
    """Why there is no number."""
    unit: str = "sigma"
    """Of noise, what its strength is: ``sigma`` (in units of 1/255), ``percent`` or ``severity``."""

    @property
    def place(self) -> Place:
        """Row of the cell, the same for all models."""
        return Place(self.attack, self.variant, self.eps_255)

    @property
    def title(self) -> str:
        """Attack and variant as they are typed."""
        return titled(self.attack, self.variant)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of ``model`` minus accuracy of ``twin`` on the same images."""

    model: str
    twin: str
    attack: str
    variant: str = ""
    eps_255: float
    difference: Figure
    """Percentage points."""
    only_model: int
    only_twin: int
    p_mcnemar: float
    p_holm: float
    """Adjusted over all comparisons of the result."""

    @property
    def place(self) -> Place:
        """Row of the cells that are compared."""
        return Place(self.attack, self.variant, self.eps_255)


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """One benchmark run, whose text is its tables; see the module's docstring for the JSON."""

    settings: Mapping[str, Any]
    models: tuple[Mapping[str, Any], ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    provenance: Mapping[str, Any]
    radii: tuple[Mapping[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "schema": SCHEMA,
            "settings": dict(self.settings),
            "settings_digest": digest_of(self.settings),
            "models": [dict(model) for model in self.models],
            "cells": [asdict(cell) for cell in self.cells],
            "radii": [dict(one) for one in self.radii],
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "provenance": dict(self.provenance),
        }

    def __repr__(self) -> str:
        return "\n\n".join(map(str, tables(self)))


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


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a cell, how long they took, and the checks that let them pass."""

    values: NDArray[Any]
    """(k,) of the first k samples; k is n in a finished cell. Of a classifier bool, right or not."""
    seconds: float
    gates: tuple[Mapping[str, Any], ...] = ()


class ResultFolder:
    """A folder with one file for each cell, and the result at the end.

    ``cells/KEY.safetensors`` holds the scores of the batches that are done, so an interrupted run goes on at
    the next batch. A key belongs to one content: what is written later only adds samples. ``result.json`` and
    ``samples.safetensors`` appear at the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_cell(self, key: str, n: int, *, batch_size: int) -> Scores | None:
        """Scores of a cell of n samples as far as it is done, None if it was not begun.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._cell(key)
        if not path.is_file():
            return None
        try:
            arrays = load(path.read_bytes())
            scores = Scores(
                values=arrays["scores"],
                seconds=float(arrays["seconds"][0]),
                gates=tuple(json.loads(arrays["gates"].tobytes())),
            )
        except (SafetensorError, KeyError, IndexError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        done = scores.values.size
        if scores.values.shape != (done,) or done > n or (done < n and done % batch_size):
            raise _damaged(path, f"it holds shape {scores.values.shape}, not ({n},)")
        return scores

    def write_cell(self, key: str, scores: Scores) -> None:
        """Keep the scores of a cell as far as it is done."""
        arrays = {
            "scores": scores.values,
            "seconds": np.array([scores.seconds]),
            "gates": np.frombuffer(json.dumps(scores.gates).encode(), dtype=np.uint8),
        }
        write_atomic(self._cell(key), save(arrays))

    def read_document(self, key: str) -> Any:
        """What :meth:`write_document` kept under a key, None if nothing.

        Raises:
            IntegrityError: the file is damaged.
        """
        path = self._document(key)
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error

    def write_document(self, key: str, document: Any) -> None:
        """Keep plain JSON values that took long to compute."""
        write_atomic(self._document(key), json.dumps(document, allow_nan=False).encode())

    def write_result(self, result: Result, scores: Mapping[str, NDArray[Any]]) -> None:
        """Write ``result.json`` and, with the scores of each cell, ``samples.safetensors``.

        Args:
            scores: cell key to (n,), bool as 0 and 1. The arrays are named ``MODEL/ATTACK[:VARIANT]/EPS``;
                ``indices`` says which images of the split they are about.
        """
        n = int(result.settings["n"])
        arrays: dict[str, NDArray[Any]] = {"indices": np.arange(n, dtype=np.int64)}
        for cell in result.cells:
            if cell.key in scores:
                values = scores[cell.key]
                name = f"{cell.model}/{cell.title}/{cell.eps_255:g}"
                arrays[name] = values.astype(np.uint8) if values.dtype == np.bool_ else values
        write_atomic(self.folder / "samples.safetensors", save(arrays))
        text = json.dumps(result.document(), indent=2, allow_nan=False) + "\n"
        write_atomic(self.folder / "result.json", text.encode())

    def _cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.safetensors"

    def _document(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"The stored cell {path} cannot be read: {reason}.", hint="Recompute it: add --fresh to the command."
    )
