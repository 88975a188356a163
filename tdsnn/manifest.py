"""Parse and check the hand-written manifests and the machine-written releases; resolve short names.

A manifest ``zoo/models/NAME.toml`` has ``summary``, ``twin`` and optionally ``default``, ``licence``,
``citation``, ``notes`` at the top, then the tables ``[model]`` (``architecture``, ``arguments``), ``[data]``
(``name``), ``[topography]`` and ``[recipe]`` (fields of the records of that name in :mod:`tdsnn.types`).
``NAME-s1``, ``NAME-s2``, ... are the same entry from other seeds; they need no file of their own. A release
``zoo/releases/NAME.json`` holds one :class:`tdsnn.types.Release`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tdsnn import paths
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import read_json, write_atomic
from tdsnn.hub import Reference
from tdsnn.registry import suggest
from tdsnn.types import FileRecord, Manifest, Recipe, Release, Topography

_SCHEMA = 1
_COMMAND = "tdsnn-zoo list"
_TOP_LEVEL = ("summary", "default", "twin", "licence", "citation", "notes")
_TABLES = ("model", "data", "topography", "recipe")
LAST_SEED = 999_999
_SEEDED = re.compile(r"(?P<entry>.+)-s(?P<seed>[1-9]\d{0,5})")
_PATH = re.compile(r"\w[\w .-]*(?:/\w[\w .-]*)*")
_LONGEST_PATH = 200
_RELEASE_KEYS = {"schema", "name", "files", "hub", "metrics", "provenance"}
_HINTS: dict[type, dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Manifest, Topography, Recipe)}

Record = TypeVar("Record", Topography, Recipe)


def list_models() -> tuple[str, ...]:
    """Sorted full names of all zoo entries, and of their other seeds that were released."""
    written = set(_written())
    released = {path.stem for zoo in paths.zoo_folders() for path in (zoo / "releases").glob("*.json")}
    seeds = {name for name in released - written if entry_and_seed(name)[0] in written}
    return tuple(sorted(written | seeds))


def entry_and_seed(name: str) -> tuple[str, int]:
    """``("sresnet18.cifar10", 2)`` of ``sresnet18.cifar10-s2``; the entry itself has seed 0."""
    found = _SEEDED.fullmatch(name)
    return (found["entry"], int(found["seed"])) if found else (name, 0)


def seeded(name: str, seed: int) -> str:
    """Full name of an entry's other seed, the inverse of :func:`entry_and_seed`."""
    return f"{name}-s{seed}" if seed else name


def home(name: str) -> Path:
    """The zoo folder that the entry with this full name belongs to: the first that has its manifest."""
    return manifest_path(name).parents[1]


def manifest_path(name: str) -> Path:
    """Where the manifest of the entry with this full name is; its other seeds share it."""
    folders = paths.zoo_folders()
    # A file of its own wins, for a seed that must differ in more than that.
    files = [zoo / "models" / f"{one}.toml" for one in (name, entry_and_seed(name)[0]) for zoo in folders]
    return next((path for path in files if path.is_file()), folders[-1] / "models" / f"{name}.toml")


def resolve(name: str) -> Manifest:
    """Manifest of a full name (``tsresnet18.cifar10``), of another seed (``tsresnet18.cifar10-s1``), or
    of a bare name's default variant (``tsresnet18``).

    Raises:
        UsageError: unknown name, no single default variant, or a manifest that breaks the schema.
    """
    names = _written()
    if name in names:
        return _read(name)
    entry, seed = entry_and_seed(name)
    if seed and entry in names:
        return _reseeded(_read(entry), seed)
    variants = [full for full in names if full.partition(".")[0] == name]
    if not variants:
        bare = {full.partition(".")[0] for full in names}
        raise suggest(name, [*names, *sorted(bare)], kind="model", command=_COMMAND)
    defaults = [manifest for manifest in map(_read, variants) if manifest.default]
    # A zoo folder of one's own may have a default beside the project's.
    homes = [home(manifest.name) for manifest in defaults]
    first = next((zoo for zoo in paths.zoo_folders() if zoo in homes), None)
    defaults = [manifest for manifest, zoo in zip(defaults, homes, strict=True) if zoo == first]
    if len(defaults) != 1:
        found = f"{len(defaults)} default variants" if defaults else "no default variant"
        raise UsageError(f"'{name}' has {found}.", hint=f"Name one of them in full: {', '.join(variants)}")
    return defaults[0]


def parse(name: str, text: str) -> Manifest:
    """Manifest from TOML ``text``. Unknown keys, wrong types and negative numbers are a UsageError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(name, f"is not valid TOML: {error}") from error
    _known(name, "", document, (*_TOP_LEVEL, *_TABLES))
    tables = {table: _typed(name, table, document.get(table, {}), dict) for table in _TABLES}
    _known(name, "model", tables["model"], ("architecture", "arguments"))
    _known(name, "data", tables["data"], ("name",))
    hints = _HINTS[Manifest]
    top = {key: _typed(name, key, document[key], hints[key]) for key in _TOP_LEVEL if key in document}
    for key in ("summary", "twin"):
        if key not in top:
            raise _broken(name, f"lacks the key '{key}'")
    return Manifest(
        name=name,
        architecture=_required(name, tables["model"], "model", "architecture"),
        arguments=_typed(name, "model.arguments", tables["model"].get("arguments", {}), dict),
        dataset=_required(name, tables["data"], "data", "name"),
        topography=_record(name, "topography", tables["topography"], Topography),
        recipe=_record(name, "recipe", tables["recipe"], Recipe),
        **top,
    )


def require_writable(name: str) -> None:
    """Refuse to write the entry with this full name where the zoo belongs to an installed package.

    Raises:
        UsageError: the entry's zoo folder is neither ``TDSNN_ZOO`` nor in a checkout.
    """
    if home(name) == paths.bundled("zoo") and not paths.is_checkout():
        raise UsageError(
            f"'{name}' cannot be written: its zoo folder belongs to the installed package.",
            hint=f"Make it yours: export TDSNN_ZOO=DIR and cp '{manifest_path(name)}' \"$TDSNN_ZOO/models/\"",
        )


def release_path(name: str) -> Path:
    """Where the release of the entry with this full name is, or would be."""
    return home(name) / "releases" / f"{name}.json"


def load_release(name: str) -> Release | None:
    """Release of a zoo entry (full or bare name), or None when nothing has been released yet.

    Raises:
        UsageError: unknown name.
        IntegrityError: a release file that breaks the schema.
    """
    full = resolve(name).name
    path = release_path(full)
    if not path.is_file():
        return None
    try:
        return _release(full, read_json(path))
    except (OSError, ValueError, TypeError, KeyError, UsageError) as error:
        raise IntegrityError(
            f"The release file '{path}' is damaged: {error}.",
            hint="Restore it from git or reinstall tdsnn-zoo.",
        ) from error


def write_release(release: Release) -> Path:
    """Write ``zoo/releases/NAME.json`` in one step; equal releases give equal bytes.

    ``metrics`` maps a metric's name to ``{"value", "unit"}`` and where it applies ``"n"``, ``"interval"``
    (95 %, two numbers) or, for a figure per layer, ``{"layers": {layer: value}, "unit"}``. ``clean_accuracy``
    (%) and ``parameters`` (count) are the two that ``tdsnn-zoo list`` shows.
    """
    document = asdict(release)
    repo, commit = document.pop("hub_repo"), document.pop("hub_commit")
    document |= {"schema": _SCHEMA, "hub": {"repo": repo, "commit": commit} if repo else None}
    document["files"] = sorted(document["files"], key=lambda record: record["path"])
    _release(release.name, document)
    path = release_path(release.name)
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode())
    return path


def _written() -> list[str]:
    found = {path.stem for zoo in paths.zoo_folders() for path in (zoo / "models").glob("*.toml")}
    return sorted(found)


def _reseeded(manifest: Manifest, seed: int) -> Manifest:
    """Weights, order of the images and sheets are drawn anew; the twin is the one of the same seed."""
    topography, recipe = manifest.topography, manifest.recipe
    return replace(
        manifest,
        name=seeded(manifest.name, seed),
        default=False,
        twin=seeded(manifest.twin, seed),
        topography=replace(topography, sheet_seed=topography.sheet_seed + seed),
        recipe=replace(recipe, seed=recipe.seed + seed),
    )


def _read(name: str) -> Manifest:
    try:
        return parse(name, manifest_path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(name, f"cannot be read: {error}") from error


def _release(name: str, document: Any) -> Release:
    if set(document) != _RELEASE_KEYS or document["schema"] != _SCHEMA:
        raise ValueError(f"it is not a release of schema {_SCHEMA}")
    if document["name"] != name:
        raise ValueError(f"it names '{document['name']}'")
    records = tuple(FileRecord(**record) for record in document["files"])
    for record in records:
        # A release also comes from other people's pull requests: it must not name files outside its folder.
        if not _PATH.fullmatch(record.path) or len(record.path) > _LONGEST_PATH:
            raise ValueError(f"the path '{record.path}' leaves the checkpoint folder or is no plain name")
        if not re.fullmatch("[0-9a-f]{64}", record.sha256) or type(record.size) is not int or record.size < 0:
            raise ValueError(f"size or sha256 of '{record.path}' is malformed")
    hub = document["hub"] or {"repo": None, "commit": None}
    if document["hub"] and not Reference(repo=hub["repo"], revision=hub["commit"]).commit:
        raise ValueError("the Hub commit is not 40 hex digits")
    return Release(
        name=name,
        files=records,
        metrics=dict(document["metrics"]),
        provenance=dict(document["provenance"]),
        hub_repo=hub["repo"],
        hub_commit=hub["commit"],
    )


def _record(name: str, table: str, values: Mapping[str, Any], kind: type[Record]) -> Record:
    hints = _HINTS[kind]
    _known(name, table, values, list(hints))
    checked = {key: _typed(name, f"{table}.{key}", value, hints[key]) for key, value in values.items()}
    return kind(**checked)


def _typed(name: str, key: str, value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if get_origin(kind) is tuple:
        inner, what = get_args(kind)[0], "strings" if get_args(kind)[0] is str else "whole numbers"
        if type(value) is not list or any(type(item) is not inner for item in value):
            raise _broken(name, f"needs a list of {what} for '{key}', not {value!r}")
        return tuple(value)
    if get_origin(kind) is dict:
        table, inner = _typed(name, key, value, dict), get_args(kind)[1]
        return {entry: _typed(name, f"{key}.{entry}", item, inner) for entry, item in table.items()}
    if type(value) is not kind:
        raise _broken(name, f"needs {_ARTICLES[kind]} for '{key}', not {value!r}")
    if kind in (int, float) and not (math.isfinite(value) and value >= 0):
        raise _broken(name, f"needs a finite number of at least 0 for '{key}', not {value!r}")
    return value


_ARTICLES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
}


def _required(name: str, table: Mapping[str, Any], title: str, key: str) -> str:
    if key not in table:
        raise _broken(name, f"lacks the key '{title}.{key}'")
    return str(_typed(name, f"{title}.{key}", table[key], str))


def _known(name: str, table: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            guess = f"; did you mean '{near[0]}'?" if near else ""
            where = f"[{table}]" if table else "the top level"
            raise _broken(
                name, f"has an unknown key '{key}' in {where}{guess}", hint=f"Known: {', '.join(known)}"
            )


def _broken(name: str, reason: str, *, hint: str = "") -> UsageError:
    advice = hint or f"Edit {manifest_path(name)}"
    stop = "" if reason.endswith("?") else "."
    return UsageError(f"The manifest of '{name}' {reason}{stop}", hint=advice)
