"""A result becomes official: its document goes where the cards of its models look for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdsnn import manifest as manifests
from tdsnn import paths
from tdsnn.errors import UsageError
from tdsnn.files import copy_atomic, require_free
from tdsnn.report import documents

_KINDS = {"result.json": "bench", "survey.json": "topo"}
_NAME = re.compile(r"\w[\w.-]{0,99}")
_HINT = "Name the folder that 'tdsnn-zoo bench --out DIR' or 'tdsnn-zoo topo --out DIR' wrote."


def make_official(place: Path, *, name: str, force: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Copy the document of a benchmark or a survey to the official results of its models' zoo folder.

    Args:
        place: a folder with ``result.json`` or ``survey.json``, or that file.
        name: of the copy, without suffix.
        force: replace a document of that name.

    Returns:
        The copy, and the entries whose cards show it.

    Raises:
        UsageError: no such document, a model that is no released entry or has other weights now, a document
            that no card would show or that may not be written there, or one of that name.
        IntegrityError: the document is damaged.
    """
    source = _find(place)
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot be the name of a document.", hint="For example ours-standard.")
    document = documents.read(source, _summary)
    for model, sha256 in document.weights.items():
        _require_released(model, sha256)
    homes = {manifests.home(model) for model in document.weights}
    # Of several the first that is searched; the cards in the others are not for its owner to change.
    zoo, folder = next(
        both
        for both in zip(paths.zoo_folders(), documents.result_folders(_KINDS[source.name]), strict=True)
        if both[0] in homes
    )
    shown = tuple(one for one in document.weights if manifests.home(one) == zoo and _is_shown(one, document))
    if not shown:
        raise UsageError(
            f"No card would show '{source}': cards are about a model beside its twin, on their own data.",
            hint="Measure an entry and its twin in one command: tdsnn-zoo bench NAME --out DIR",
        )
    for model in shown:
        manifests.require_writable(model)
    target = folder / f"{name}.json"
    if not force:
        require_free(target, option="--name")
    copy_atomic(source, target)
    return target, shown


def _find(place: Path) -> Path:
    found = [place] if place.name in _KINDS else [place / file for file in _KINDS]
    found = [path for path in found if path.is_file()]
    if not found:
        raise UsageError(f"'{place}' has neither {' nor '.join(_KINDS)}.", hint=_HINT)
    if len(found) > 1:
        raise UsageError(f"'{place}' has both {' and '.join(_KINDS)}.", hint=f"Name one: {found[0]}")
    return found[0]


@dataclass(frozen=True, kw_only=True)
class _Summary:
    """What a document is about."""

    weights: Mapping[str, str]
    """Each model and the sha256 of its weights."""
    dataset: str | None
    """Of the test images; None of a survey."""


def _summary(document: Any) -> _Summary:
    if "models" in document:
        result = documents.parse_result(document)
        weights = {str(model["name"]): str(model["checkpoint_sha256"]) for model in result.models}
        return _Summary(weights=weights, dataset=str(result.settings["dataset"]))
    survey = documents.parse_survey(document)
    named = {model: survey.weights.get(subject, "") for model, subject in survey.models.items()}
    return _Summary(weights=named, dataset=None)


def _is_shown(name: str, document: _Summary) -> bool:
    """Whether the card of an entry shows the document, which is about released weights."""
    manifest = manifests.resolve(name)
    if document.dataset not in (None, manifest.dataset):
        return False
    alone = not manifest.topographic and manifests.load_release(manifest.twin) is None
    return alone or manifest.twin in document.weights


def _require_released(name: str, sha256: str) -> None:
    release = manifests.load_release(name)
    if release is None or release.weights_sha256 != sha256:
        state = "was not released" if release is None else "has other weights now"
        raise UsageError(
            f"The result is about '{name}', which {state}.",
            hint=f"Official results are about released weights: measure '{name}' again, after 'tdsnn-zoo "
            "publish RUN_DIR' if it is not in the zoo yet.",
        )
