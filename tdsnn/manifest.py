"""Parse and check the hand-written manifests and the machine-written releases; resolve short names.

A manifest ``zoo/models/NAME.toml`` has ``summary``, ``twin`` and optionally ``default``, ``licence``,
``citation``, ``notes`` at the top, then the tables ``[model]`` (``architecture``, ``arguments``), ``[data]``
(``name``), ``[topography]`` and ``[recipe]`` (fields of the tables of that name in :mod:`tdsnn.schema`; in
the former also the options of the spatial loss). ``NAME-s1``, ``NAME-s2``, ... are the same entry from other
seeds; they need no file of their own. A release ``zoo/releases/NAME.json`` holds one
:class:`tdsnn.schema.Release`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Literal, TypedDict

from msgspec.structs import replace

from tdsnn import paths
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import parse_toml, read_json, write_atomic
from tdsnn.hub import Reference
from tdsnn.registry import suggest
from tdsnn.schema import (
    Commit,
    Description,
    FileRecord,
    Manifest,
    Metric,
    Recipe,
    Release,
    Table,
    Topography,
    plain,
    split_options,
)
from tdsnn.validation import check

_SCHEMA = 1
_COMMAND = "tdsnn-zoo list"
_RESTORE = "Restore it from git or reinstall tdsnn-zoo."
LAST_SEED = 999_999
_SEEDED = re.compile(r"(?P<entry>.+)-s(?P<seed>[1-9]\d{0,5})")


class _Model(Table, frozen=True, kw_only=True):
    architecture: str
    arguments: Mapping[str, Any] = {}


class _Data(Table, frozen=True, kw_only=True):
    name: str


class _File(Description, frozen=True, kw_only=True):
    """``zoo/models/NAME.toml``."""

    model: _Model
    data: _Data
    topography: Topography = Topography()
    recipe: Recipe = Recipe()


class _Hub(Table, frozen=True, kw_only=True):
    repo: str
    commit: Commit


class _ReleaseFile(Table, frozen=True, kw_only=True):
    """``zoo/releases/NAME.json``."""

    schema: Literal[1]
    name: str
    files: tuple[FileRecord, ...]
    hub: _Hub | None
    metrics: dict[str, Metric]
    provenance: dict[str, Any]


class Wording(TypedDict):
    """What :func:`tdsnn.validation.check` says of a document."""

    name: str
    hint: str


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
    if _is_written(name):
        return _read(name)
    entry, seed = entry_and_seed(name)
    return _reseeded(_read(entry), seed) if seed and _is_written(entry) else _default_variant(name)


def full_name(name: str) -> str:
    """Full name of an entry that is named in full, by another seed, or bare; as :func:`resolve`."""
    entry, seed = entry_and_seed(name)
    known = _is_written(name) or (seed and _is_written(entry))
    return name if known else _default_variant(name).name


def _is_written(name: str) -> bool:
    """Whether there is a manifest of this very name; one look at each zoo folder, however much they hold."""
    if Path(name).name != name:
        return False
    with suppress(OSError):  # longer than the name of any file
        return any((zoo / "models" / f"{name}.toml").is_file() for zoo in paths.zoo_folders())
    return False


def _default_variant(name: str) -> Manifest:
    names = _written()
    variants = [full for full in names if full.partition(".")[0] == name]
    if not variants:
        bare = {full.partition(".")[0] for full in names}
        raise suggest(name, [*names, *sorted(bare)], kind="model", command=_COMMAND)
    readable, broken = [], None
    for full in variants:
        try:
            readable.append(_read(full))
        except UsageError as error:  # of one entry must not end what is about another
            broken = error
    defaults = [manifest for manifest in readable if manifest.default]
    if not defaults and broken is not None:
        raise broken
    if len(defaults) == 1:
        return defaults[0]
    # Not the one of the first folder: a name must not mean another network because of a file in a shared one.
    places = (f"{manifest.name} in {home(manifest.name)}" for manifest in defaults)
    found = f"{len(defaults)} default variants: {', '.join(places)}" if defaults else "no default variant"
    raise UsageError(f"'{name}' has {found}.", hint=f"Name one of them in full: {', '.join(variants)}")


def parse(name: str, text: str) -> Manifest:
    """Manifest from TOML ``text``, as far as it can be checked without importing what it names.

    Options of the spatial loss and arguments of the architecture are taken as they are here.

    Raises:
        UsageError: no TOML, an unknown key, or a value of another type, out of range or no choice.
    """
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise UsageError(
            f"The manifest of '{name}' is not valid TOML: {error}.", hint=f"Edit {manifest_path(name)}"
        ) from error
    if "topography" in document:
        document["topography"] = split_options(document["topography"])
    file = check(document, _File, **wording(name))
    described = {field: getattr(file, field) for field in Description.__struct_fields__}
    return Manifest(
        name=name,
        architecture=file.model.architecture,
        arguments=file.model.arguments,
        dataset=file.data.name,
        topography=file.topography,
        recipe=file.recipe,
        **described,
    )


def complete(manifest: Manifest) -> Manifest:
    """With all options of its spatial loss, checked; imports that and so torch.

    Raises:
        UsageError: no such loss, or an option that it does not take.
    """
    from tdsnn.topography.losses import _base as losses

    topography = losses.complete(manifest.topography, **wording(manifest.name))
    return replace(manifest, topography=topography)


def wording(name: str, *, changed: bool = False) -> Wording:
    """How faults of the manifest with this full name are worded, for :func:`tdsnn.validation.check`.

    Args:
        changed: it is not as in its file, but with settings from elsewhere.
    """
    if changed:
        return {
            "name": f"With these settings, the manifest of '{name}'",
            "hint": f"See what it has without: tdsnn-zoo info {quote(name)}",
        }
    return {"name": f"The manifest of '{name}'", "hint": f"Edit {manifest_path(name)}"}


def require_writable(name: str) -> None:
    """Refuse to write the entry with this full name where the zoo belongs to an installed package.

    Raises:
        UsageError: the entry's zoo folder is neither ``TDSNN_ZOO`` nor in a checkout.
    """
    if home(name) == paths.bundled("zoo") and not paths.is_checkout():
        path = str(manifest_path(name))
        raise UsageError(
            f"'{name}' cannot be written: its zoo folder belongs to the installed package.",
            hint=f'Make it yours: export TDSNN_ZOO=DIR and cp {quote(path)} "$TDSNN_ZOO/models/"',
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
    full = full_name(name)
    path = release_path(full)
    if not path.is_file():
        return None
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"The release file '{path}' is damaged: {error}.", hint=_RESTORE) from error
    return _release(full, document, path)


def write_release(release: Release) -> Path:
    """Write ``zoo/releases/NAME.json`` in one step; equal releases give equal bytes.

    ``clean_accuracy`` (%) and ``parameters`` (count) are the two metrics that ``tdsnn-zoo list`` shows.

    Raises:
        IntegrityError: a release that could not be read again.
    """
    document = plain(release)
    repo, commit = document.pop("hub_repo"), document.pop("hub_commit")
    document |= {"schema": _SCHEMA, "hub": {"repo": repo, "commit": commit} if repo else None}
    document["files"] = sorted(document["files"], key=lambda record: record["path"])
    path = release_path(release.name)
    _release(release.name, document, path)
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
    path = manifest_path(name)
    try:
        return parse(name, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The manifest of '{name}' cannot be read: {error}.", hint=f"See {path}") from error


def _release(name: str, document: Any, path: Path) -> Release:
    subject = f"The release file '{path}'"
    file = check(document, _ReleaseFile, name=subject, error=IntegrityError, hint=_RESTORE)
    if file.name != name:
        raise IntegrityError(f"{subject} names '{file.name}'.", hint=_RESTORE)
    repo, commit = (file.hub.repo, file.hub.commit) if file.hub else (None, None)
    try:
        _ = repo and Reference(repo=repo)
    except UsageError as error:
        raise IntegrityError(f"{subject} is damaged: {error.message}", hint=_RESTORE) from error
    return Release(
        name=name,
        files=file.files,
        # As they are: a whole number stays one, so that writing them again gives the same bytes.
        metrics=dict(document["metrics"]),
        provenance=dict(document["provenance"]),
        hub_repo=repo,
        hub_commit=commit,
    )
