"""What a sweep runs: a hand-written TOML file, expanded into runs with a folder each.

::

    summary = "What the sweep is for."
    seeds = [0, 1, 2]                      # of every entry below, unless it names its own
    settings = ["epochs=2"]                # as of `tdsnn-zoo train --set`, for every run

    [[runs]]
    entry = "sresnet18.fashion_mnist"      # full name of a zoo entry

    [[runs]]
    entry = "tsresnet18.fashion_mnist"
    label = "alpha-0.1"                    # part of the folder's name; needed where an entry stands twice
    settings = ["topography.alpha=0.1"]    # after those above

Runs are started in the order of the file, all entries of the first seed first. A topographic run whose sheets
are arranged by its twin waits for the twin if that is part of the sweep.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tdsnn import manifest as manifests
from tdsnn import paths, store
from tdsnn.errors import UsageError
from tdsnn.registry import suggest
from tdsnn.topography.positions import PREPARATION
from tdsnn.train.recipe import override
from tdsnn.train.state import begun, check_settings
from tdsnn.types import Manifest

_KEYS: Mapping[str, type] = {"summary": str, "seeds": list, "settings": list, "runs": list}
_RUN_KEYS: Mapping[str, type] = {"entry": str, "label": str, "seeds": list, "settings": list}
_WORDS: Mapping[type[Any], str] = {str: "string", list: "list"}
_LABEL = re.compile(r"[\w.-]{1,60}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    entry: str
    """Full name of the zoo entry, with its seed."""
    label: str
    settings: tuple[str, ...]
    manifest: Manifest
    """The entry's, with the settings."""
    folder: Path
    waits_for: str = ""
    """Name of the run of this sweep whose weights arrange the sheets; empty if there is none to wait for."""

    @property
    def name(self) -> str:
        """Name of the run, which is that of its folder."""
        return self.folder.name


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file."""

    path: Path
    summary: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def folder(self) -> Path:
        """The parent of all run folders."""
        return self.runs[0].folder.parent


def read_sweep(path: Path, *, folder: Path | None = None) -> Sweep:
    """Read and check a sweep file and the run folders that exist already.

    Args:
        folder: parent of the run folders; by default the one of all runs, named like the file.

    Raises:
        UsageError: no such file, an unknown key, entry or setting, two runs of one name, a topographic run
            whose twin is neither in the sweep nor released, or a folder that holds a run of other settings.
        IntegrityError: a run folder whose settings cannot be read.
    """
    document = _document(path)
    parent = folder or paths.runs_dir() / path.stem
    if parent.exists() and not parent.is_dir():
        raise UsageError(f"'{parent}' is no folder.", hint="Choose another --run-dir.")
    blocks = [_checked(path, "runs", block, _RUN_KEYS) for block in document.get("runs", [])]
    if not blocks:
        raise _broken(path, "names no runs", hint='Add [[runs]] with entry = "NAME"; see tdsnn-zoo sweep -h')
    shared = _texts(path, "settings", document.get("settings", []))
    default_seeds = _seeds(path, document.get("seeds", [0]))
    runs = [
        (order, index, _run(path, block, seed, shared, parent))
        for index, block in enumerate(blocks)
        for order, seed in enumerate(_seeds(path, block["seeds"]) if "seeds" in block else default_seeds)
    ]
    ordered = [run for _, _, run in sorted(runs, key=lambda item: item[:2])]
    names = [run.name for run in ordered]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise _broken(path, f"has two runs called '{twice}'", hint="Give one of them a label or other seeds.")
    for run in ordered:
        if begun(run.folder):
            check_settings(run.folder, run.manifest)
    return Sweep(
        path=path,
        summary=document.get("summary", ""),
        runs=tuple(_with_twin(run, ordered) for run in ordered),
    )


def _document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"There is no sweep file '{path}'.", hint="Those of the project: ls zoo/sweeps")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _broken(path, f"cannot be read: {error}") from error
    return _checked(path, "the top level", document, _KEYS)


def _run(path: Path, block: Mapping[str, Any], seed: int, shared: list[str], parent: Path) -> Run:
    if "entry" not in block:
        raise _broken(path, "has a run without 'entry'")
    label = block.get("label", "")
    if label and not _LABEL.fullmatch(label):
        raise _broken(path, f"has the label '{label}', which cannot be part of a folder's name")
    base = manifests.resolve(block["entry"])
    if manifests.entry_and_seed(base.name)[1]:
        raise _broken(path, f"names '{base.name}', a seed", hint="Name the entry, and list its seeds.")
    entry = manifests.seeded(base.name, seed)
    settings = (*shared, *_texts(path, "settings", block.get("settings", [])))
    for setting in settings:
        if setting.partition("=")[0].strip().rpartition(".")[2] in ("seed", "sheet_seed"):
            raise _broken(path, f"sets '{setting}'", hint="Seeds go into the list 'seeds'.")
    manifest = override(manifests.resolve(entry), settings)
    folder = parent / (f"{entry}+{label}" if label else entry)
    return Run(entry=entry, label=label, settings=settings, manifest=manifest, folder=folder)


def _with_twin(run: Run, runs: list[Run]) -> Run:
    ours = run.manifest
    if not ours.topographic or ours.topography.preparation != PREPARATION:
        return run
    same = ("architecture", "arguments", "dataset", "recipe")
    for other in runs:
        theirs = other.manifest
        if (
            other.entry == ours.twin
            and not theirs.topographic
            and all(getattr(ours, key) == getattr(theirs, key) for key in same)
        ):
            return replace(run, waits_for=other.name)
    if store.available(ours.twin) is None:
        raise UsageError(
            f"The run '{run.name}' needs the weights of its twin '{ours.twin}', which were not released.",
            hint=f'Add the twin to the sweep with the same settings: entry = "{ours.twin}"',
        )
    return run


def _checked(path: Path, where: str, table: Any, kinds: Mapping[str, type[Any]]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise _broken(path, f"needs tables in {where}, not {table!r}")
    for key, value in table.items():
        if key not in kinds:
            raise suggest(key, kinds, kind=f"key in {where} of a sweep", command="tdsnn-zoo sweep -h")
        if type(value) is not kinds[key]:
            raise _broken(path, f"needs a {_WORDS[kinds[key]]} for '{key}', not {value!r}")
    return table


def _texts(path: Path, key: str, values: list[Any]) -> list[str]:
    if any(type(value) is not str for value in values):
        raise _broken(path, f"needs a list of \"key=value\" strings for '{key}', not {values!r}")
    return values


def _seeds(path: Path, values: list[Any]) -> list[int]:
    if not values or any(type(value) is not int or not 0 <= value <= manifests.LAST_SEED for value in values):
        raise _broken(
            path, f"needs a list of whole numbers from 0 to {manifests.LAST_SEED} for 'seeds', not {values!r}"
        )
    return values


def _broken(path: Path, reason: str, *, hint: str = "") -> UsageError:
    return UsageError(f"The sweep '{path}' {reason}.", hint=hint or f"Edit {path}")
