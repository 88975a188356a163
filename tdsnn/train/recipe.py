"""Typed recipes: overrides from the command line and values that can be used."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tdsnn.data._augment import check_names
from tdsnn.errors import UsageError
from tdsnn.registry import suggest
from tdsnn.topography.losses._base import SPATIAL_LOSSES
from tdsnn.types import Manifest, Recipe, Topography

Record = TypeVar("Record", Recipe, Topography)

_HINT = "What an entry has now: tdsnn-zoo info NAME"
_RANGES = {
    "seed": (0, 2**48),
    "sheet_seed": (0, 2**48),
    "epochs": (1, 100_000),
    "batch_size": (1, 65_536),
    "lr": (1e-8, 100.0),
    "matrix_lr": (1e-8, 1.0),
    "weight_decay": (0.0, 10.0),
    "warmup_epochs": (0.0, 100_000),
    "label_smoothing": (0.0, 0.99),
    "ema_decay": (0.0, 0.99999),
    "bn_batches": (0, 10_000),
    "rate_penalty": (0.0, 1e6),
    "clip_norm": (0.0, 1e6),
    "alpha": (0.0, 1e6),
    "beta": (0.0, 1e6),
    "window": (0, 1_000),
    "clusters": (1, 10_000),
    "cluster_units": (5, 10_000),
    "attempts_per_unit": (0.0, 1e6),
    "factor_h": (1.0, 1_000.0),
    "factor_w": (1.0, 1_000.0),
}
_CHOICES = {
    "optimizer": ("adamw", "sgd", "muon"),
    "precision": ("bf16", "fp32"),
    "weight_format": ("fp32", "fp16"),
    "window_shape": ("flat", "triangular"),
    "form": ("relative", "absolute"),
    "preparation": ("retinotopic", "pre-optimised"),
}


def override(manifest: Manifest, settings: Sequence[str]) -> Manifest:
    """The manifest with ``key=value`` settings applied; every value is checked, also those not changed.

    Keys are the fields of the recipe (``lr=1e-3``), of the topography (``topography.alpha=0.5``), or
    arguments of the model (``model.width=8``). Values are written as in TOML; strings need no quotes.

    Raises:
        UsageError: unknown key, wrong type, or a value outside its range.
    """
    recipe, topography = manifest.recipe, manifest.topography
    arguments = dict(manifest.arguments)
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"'{setting}' is not of the form key=value.", hint="Example: --set lr=1e-3")
        section, _, field = key.partition(".") if "." in key else ("", "", key)
        if section == "model":
            arguments = _nested(arguments, field.split("."), _value(text))
        elif section == "topography":
            topography = _set(topography, field, _value(text))
        elif section in ("", "recipe"):
            recipe = _set(recipe, field, _value(text))
        else:
            raise suggest(
                section, ("recipe", "topography", "model"), kind="section", command="tdsnn-zoo train -h"
            )
    for record in (recipe, topography):
        _check(record)
    return dataclasses.replace(manifest, recipe=recipe, topography=topography, arguments=arguments)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _nested(table: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of nested ``table`` with one known entry changed: ``neuron.tau`` of a model's arguments."""
    first, *rest = path
    _known(first, dict(table), "model argument")
    before = table[first]
    if rest:
        if not isinstance(before, Mapping):
            raise UsageError(f"The model argument '{first}' has no parts such as '{rest[0]}'.", hint=_HINT)
        return {**table, first: _nested(before, rest, value)}
    if type(before) is float and type(value) is int:
        value = _number(first, value)
    if type(value) is not type(before):
        raise UsageError(f"{first} must be of type {type(before).__name__}, not {value!r}.", hint=_HINT)
    return {**table, first: value}


def _number(field: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{field} is too large a number.", hint=_HINT) from error


def _set(record: Record, field: str, value: Any) -> Record:
    fields = {entry.name: getattr(record, entry.name) for entry in dataclasses.fields(record)}
    _known(field, fields, "setting")
    wanted = type(fields[field])
    if wanted is float and type(value) is int:
        value = _number(field, value)
    if wanted is tuple and isinstance(value, list) and all(type(item) is str for item in value):
        value = tuple(value)
    if type(value) is not wanted:
        raise UsageError(f"{field} must be of type {wanted.__name__}, not {value!r}.", hint=_HINT)
    return dataclasses.replace(record, **{field: value})


def _known(field: str, fields: dict[str, Any], kind: str) -> None:
    if field not in fields:
        raise suggest(field, fields, kind=kind, command="tdsnn-zoo info NAME")


def _check(record: Recipe | Topography) -> None:
    for entry in dataclasses.fields(record):
        value = getattr(record, entry.name)
        low, high = _RANGES.get(entry.name, (None, None))
        if low is not None and high is not None and not low <= value <= high:
            raise UsageError(f"{entry.name} must lie in {low:g} to {high:g}, not {value}.", hint=_HINT)
        choices = _CHOICES.get(entry.name)
        if choices and value not in choices:
            raise suggest(str(value), choices, kind=entry.name, command="tdsnn-zoo train -h")
    if isinstance(record, Recipe):
        check_names(record.augmentation)
    else:
        known = SPATIAL_LOSSES.names()
        if record.loss not in known:
            raise suggest(record.loss, known, kind="spatial loss", command="tdsnn-zoo train -h")
