"""Which models a benchmark is about; a topographic model never comes without its twin. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from msgspec.structs import asdict

from tdsnn import manifest, naming, store
from tdsnn.errors import UsageError
from tdsnn.schema import Manifest
from tdsnn.weights import CheckpointConfig, verify_checkpoint

Described = tuple[tuple[str, Any], ...]
"""Names and values of what a model and its twin have in common."""
_SHEETS = ("sheet_seed", "unit_mm", "preparation", "attempts_per_unit")
"""What a model and its twin share of the topography: without a spatial loss only the sheets count."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What a model is to be shown beside."""

    name: str | None = None
    """Zoo entry that has no spatial loss and is the same in all else; None: the model has or needs none."""
    lacking: str | None = None
    """Why a model that may be topographic has no twin here, one sentence."""


def with_twins(names: Sequence[str]) -> dict[str, Twin]:
    """Full names, paths and Hub references in order, each topographic model followed by its twin, once each.

    Raises:
        UsageError: an unknown name, no checkpoint at a path, or a manifest whose twin differs in more than
            the spatial loss.
        IntegrityError: the checkpoint at a path is damaged.
        MissingError: a repository cannot be had.
    """
    chosen: dict[str, Twin] = {}
    for name in names:
        subject = naming.parse(name)
        if isinstance(subject, str):
            name, twin = subject, _twin_of_entry(manifest.resolve(subject))
        else:
            twin = _twin_of_checkpoint(name, _config(name))
        chosen[name] = twin
        if twin.name is not None:
            chosen.setdefault(twin.name, Twin())
    return chosen


def require_alike(name: str, ours: CheckpointConfig, twin: str, theirs: CheckpointConfig) -> None:
    """Refuse a checkpoint as twin of another that is a different network, or was trained on other data.

    Raises:
        UsageError: names the first difference.
    """
    _require_equal(name, _described(ours), twin, _described(theirs))


def trained_under_attack(config: CheckpointConfig) -> bool:
    """Whether the recipe of the zoo entry that a checkpoint says it is of attacks each training batch."""
    try:
        return bool(manifest.resolve(config.name).recipe.adversarial)
    except UsageError:  # no entry of the zoo
        return False


def _twin_of_entry(model: Manifest) -> Twin:
    if not model.topographic:
        return Twin()
    twin = manifest.resolve(model.twin)
    _require_equal(model.name, _shared(model), twin.name, _shared(twin))
    if twin.topographic:
        raise UsageError(
            f"{twin.name} is no twin of {model.name}: a spatial loss shaped it too.",
            hint=f"Name another twin in {manifest.manifest_path(model.name)}",
        )
    return Twin(name=twin.name)


def _twin_of_checkpoint(name: str, config: CheckpointConfig) -> Twin:
    """The twin of the zoo entry that a checkpoint says it is of, if it is a twin of this checkpoint too."""
    try:
        model = manifest.resolve(config.name)
    except UsageError:
        return Twin(
            lacking=f"{name} ('{config.name}') is no entry of the zoo: neither whether a spatial loss "
            "shaped it nor its twin is known, so it stands beside none."
        )
    twin = _twin_of_entry(model)
    if twin.name is None:
        return twin
    if store.available(twin.name) is None:
        return Twin(lacking=f"The twin of {name}, {twin.name}, was not released, so it stands beside none.")
    try:
        require_alike(name, config, twin.name, _config(twin.name))
    except UsageError as error:
        return Twin(lacking=f"{error.message.removesuffix('.')}, so it stands beside none.")
    return twin


def _config(name: str) -> CheckpointConfig:
    location = store.locate(name)
    return verify_checkpoint(location.folder, known=location.weights)[0]


def _require_equal(name: str, ours: Described, twin: str, theirs: Described) -> None:
    for (key, value), (_, other) in zip(ours, theirs, strict=True):
        if value != other:
            raise UsageError(
                f"{twin} is no twin of {name}: they differ in {key} ({value} and {other}).",
                hint=f"Make them equal and train anew, or name another twin: tdsnn-zoo info {quote(twin)}",
            )


def _described(config: CheckpointConfig) -> Described:
    return (
        ("architecture", config.architecture),
        ("dataset", config.dataset),
        ("time steps", config.timesteps),
        ("arguments", config.arguments),
    )


def _shared(model: Manifest) -> Described:
    return (
        ("architecture", model.architecture),
        ("dataset", model.dataset),
        ("arguments", model.arguments),
        *((f"recipe.{key}", value) for key, value in asdict(model.recipe).items()),
        *((f"topography.{key}", getattr(model.topography, key)) for key in _SHEETS),
    )
