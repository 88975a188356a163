"""Settings from the command line, and the check of all that decides a training, before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from tdsnn.errors import UsageError
from tdsnn.files import parse_toml
from tdsnn.manifest import wording
from tdsnn.models._arguments import check_arguments
from tdsnn.registry import suggest
from tdsnn.schema import Manifest, Recipe, Topography, plain, split_options
from tdsnn.topography.losses._base import SPATIAL_LOSSES, complete
from tdsnn.validation import check


def override(manifest: Manifest, settings: Sequence[str]) -> Manifest:
    """The manifest with ``key=value`` settings applied; every value is checked, also those not changed.

    Keys are the fields of the recipe (``lr=1e-3``), of the topography (``topography.alpha=0.5``), or
    arguments of the model (``model.width=8``). Values are written as in TOML; strings need no quotes. With
    another spatial loss (``topography.loss=tdann``) the options of the manifest's own are left out.

    Returns:
        The manifest with all options of its spatial loss.

    Raises:
        UsageError: unknown key, wrong type, or a value out of range or no choice.
    """
    tables: dict[str, Any] = {
        "recipe": plain(manifest.recipe),
        "topography": manifest.topography.table(),
        "model": dict(manifest.arguments),
    }
    changes = [_parsed(setting, tables) for setting in settings]
    if any(path == ["topography", "loss"] and value != manifest.topography.loss for path, value in changes):
        tables["topography"] = replace(manifest.topography, options={}).table()
    for path, value in changes:
        tables = _placed(tables, path, value)
    words = wording(manifest.name, changed=bool(settings))
    topography = check(split_options(tables["topography"]), Topography, at="topography", **words)
    changed = replace(
        manifest,
        recipe=check(tables["recipe"], Recipe, at="recipe", **words),
        topography=complete(topography, **words),
        arguments=tables["model"],
    )
    timesteps = check_arguments(changed.architecture, changed.arguments, **words)
    if changed.topographic:
        SPATIAL_LOSSES.load(topography.loss).check(topography, timesteps=timesteps)
    return changed


def _parsed(setting: str, tables: Mapping[str, Any]) -> tuple[list[str], Any]:
    """Path and value of one setting; a name alone is one of the recipe."""
    key, separator, text = setting.partition("=")
    if not separator:
        raise UsageError(f"'{setting}' is not of the form key=value.", hint="Example: --set lr=1e-3")
    path = key.strip().split(".")
    if len(path) == 1:
        path = ["recipe", *path]
    if path[0] not in tables:
        raise suggest(path[0], tables, kind="section of settings")
    return path, _value(text)


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _placed(table: Mapping[str, Any], path: Sequence[str], value: Any, *, at: str = "") -> dict[str, Any]:
    """A copy of nested tables with one entry changed or added."""
    first, *rest = path
    if rest:
        inner = table.get(first, {})
        if not isinstance(inner, Mapping):
            raise UsageError(
                f"'{at}{first}' has no parts such as '{rest[0]}'.",
                hint=f"Set it as a whole: {at}{first}=VALUE",
            )
        value = _placed(inner, rest, value, at=f"{at}{first}.")
    return {**table, first: value}
