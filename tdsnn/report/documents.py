"""Official results: which of their documents are about given weights, and what they say.

They are in ``benchmarks/results``, those of a zoo folder of one's own in its ``results``.
``bench/*.json`` are copies of ``result.json`` of ``tdsnn-zoo bench``, ``topo/*.json`` copies of
``survey.json`` of ``tdsnn-zoo topo --out``. A document counts for a pair of models only if it has both, since
a topographic figure is never shown without its twin's, and only if it is about the weights that are released
now. Surveys name their weights under the optional key ``weights``, a table of subject to sha256; without it
they are told by name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tdsnn import paths
from tdsnn.errors import IntegrityError
from tdsnn.files import read_json
from tdsnn.results import SCHEMA, Result
from tdsnn.validation import check

_SURVEY_SCHEMA = 1
T = TypeVar("T")
_TWIN_MARK = " (twin)"
"""What a survey adds to the name of the twin."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One figure of a survey with its 95 % interval."""

    value: float
    low: float
    high: float
    unit: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a card needs of ``survey.json``."""

    models: Mapping[str, str]
    """Zoo entry to the subject that stands for it."""
    control: str
    """Subject with shuffled positions."""
    sheets_of: str
    """Zoo entry on whose sheets all were measured."""
    layers: tuple[str, ...]
    weights: Mapping[str, str]
    stimuli: Mapping[str, int]
    missing_stimuli: tuple[str, ...]
    seed: int
    entries: Mapping[tuple[str, str, str], Mapping[str, Estimate] | str]
    """(subject, layer, metric) to its figures, or to the reason why there are none."""


def benches(weights: Mapping[str, str], *, dataset: str) -> tuple[Result, ...]:
    """Benchmarks on a dataset that hold all of the given models with the given weights, by file name.

    Args:
        weights: zoo entry to the sha256 of its released weights.

    Raises:
        IntegrityError: a document is damaged.
    """
    found = []
    for path in _documents("bench"):
        result = read(path, parse_result)
        measured = {model["name"]: model["checkpoint_sha256"] for model in result.models}
        if result.settings["dataset"] == dataset and weights.items() <= measured.items():
            found.append(result)
    return tuple(found)


def surveys(weights: Mapping[str, str]) -> tuple[Survey, ...]:
    """Surveys that hold all of the given models, as :func:`benches`."""
    found = []
    for path in _documents("topo"):
        survey = read(path, parse_survey)
        there = weights.keys() <= survey.models.keys()
        if there and all(
            survey.weights.get(survey.models[name], sha256) == sha256 for name, sha256 in weights.items()
        ):
            found.append(survey)
    return tuple(found)


def _documents(kind: str) -> list[Path]:
    return [path for folder in result_folders(kind) for path in sorted(folder.glob("*.json"))]


def result_folders(kind: str) -> list[Path]:
    """Where the documents of a kind are: ``results`` in ``TDSNN_ZOO``, and the project's own."""
    own = paths.bundled("zoo")
    return [
        paths.bundled("benchmarks", "results", kind) if zoo == own else zoo / "results" / kind
        for zoo in paths.zoo_folders()
    ]


def read(path: Path, parse: Callable[[Any], T]) -> T:
    """A result document, as ``parse`` makes it from the JSON.

    Raises:
        IntegrityError: it cannot be read, is no JSON, or ``parse`` met something that it did not expect.
    """
    try:
        return parse(read_json(path))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, IntegrityError) as error:
        raise IntegrityError(
            f"The result document '{path}' cannot be read: {type(error).__name__}: {error}.",
            hint="Copy result.json, survey.json or results.json anew from where it was measured.",
        ) from error


def parse_result(document: Mapping[str, Any]) -> Result:
    """A benchmark from its ``result.json``."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"it is not a benchmark result of schema {SCHEMA}")
    return check(document, Result, name="The result", recorded=True, error=IntegrityError)


def parse_survey(document: Mapping[str, Any]) -> Survey:
    """What a card needs of a ``survey.json``."""
    if document["schema"] != _SURVEY_SCHEMA:
        raise ValueError(f"it is not a survey of schema {_SURVEY_SCHEMA}")
    *subjects, control = document["subjects"]
    entries: dict[tuple[str, str, str], Mapping[str, Estimate] | str] = {}
    for entry in document["entries"]:
        place = (entry["subject"], entry["layer"], entry["metric"])
        if "error" in entry:
            entries[place] = str(entry["error"])
        else:
            entries[place] = {key: Estimate(**figure) for key, figure in entry["figures"].items()}
    return Survey(
        models={subject.removesuffix(_TWIN_MARK): subject for subject in subjects},
        control=control,
        sheets_of=subjects[0],
        layers=tuple(document["sheets"]),
        weights=document.get("weights", {}),
        stimuli=document["stimuli"],
        missing_stimuli=tuple(document["missing_stimuli"]),
        seed=document["seed"],
        entries=entries,
    )
