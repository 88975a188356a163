"""A result becomes official: its document goes where the cards of its models look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tdsnn import manifest as manifests
from tdsnn import paths
from tdsnn.errors import UsageError
from tdsnn.files import copy_atomic, require_free
from tdsnn.report import _documents
from tdsnn.report._documents import result_folders

_KINDS = {"result.json": "bench", "survey.json": "topo"}
_HINT = "Name the folder that 'tdsnn-zoo bench --out DIR' or 'tdsnn-zoo topo --out DIR' wrote."


def make_official(folder: Path, *, name: str, force: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Copy the document of a benchmark or a survey to the official results of its models' zoo folder.

    Args:
        folder: with ``result.json`` or ``survey.json``.
        name: of the copy, without suffix.
        force: replace a document of that name.

    Returns:
        The copy, and the entries whose cards may show it.

    Raises:
        UsageError: no such document, a model that is no released entry or has other weights now, or a
            document of that name.
        IntegrityError: the document is damaged.
    """
    source = next((folder / file for file in _KINDS if (folder / file).is_file()), None)
    if source is None:
        raise UsageError(f"'{folder}' has neither {' nor '.join(_KINDS)}.", hint=_HINT)
    if not name or Path(name).name != name:
        raise UsageError(f"'{name}' cannot be the name of a document.", hint="For example ours-standard.")
    kind = _KINDS[source.name]
    weights = _documents.read(source, _weights)
    for model, sha256 in weights.items():
        _require_released(model, sha256)
    homes = {manifests.home(model) for model in weights}
    folders = dict(zip(paths.zoo_folders(), result_folders(kind), strict=True))
    # Beside the first folder that is searched, if they are of several.
    place = next(folders[zoo] for zoo in folders if zoo in homes)
    target = place / f"{name}.json"
    if not force:
        require_free(target)
    copy_atomic(source, target)
    return target, tuple(weights)


def _weights(document: Any) -> dict[str, str]:
    """Each model of a document and the sha256 of its weights."""
    if "models" in document:
        result = _documents.parse_result(document)
        return {str(model["name"]): str(model["checkpoint_sha256"]) for model in result.models}
    survey = _documents.parse_survey(document)
    return {model: survey.weights.get(subject, "") for model, subject in survey.models.items()}


def _require_released(name: str, sha256: str) -> None:
    release = manifests.load_release(name)
    if release is None or release.weights_sha256 != sha256:
        state = "was not released" if release is None else "has other weights now"
        raise UsageError(
            f"The result is about '{name}', which {state}.",
            hint=f"Official results are about released weights: measure '{name}' again, after 'tdsnn-zoo "
            "publish RUN_DIR' if it is not in the zoo yet.",
        )
