"""Topographic maps of a model beside its twin, and new sheets for it, in one call each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from tdsnn import manifest, naming, paths, zoo
from tdsnn.data._base import DATASETS
from tdsnn.errors import UsageError
from tdsnn.files import read_json, require_folder, require_free, write_atomic
from tdsnn.maps.figures import draw
from tdsnn.maps.survey import Survey, survey
from tdsnn.progress import Progress, silent
from tdsnn.registry import suggest
from tdsnn.schema import Topography
from tdsnn.topography.outputs import device_of
from tdsnn.topography.preparation import fresh_sheets, prepare_sheets
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.zoo import Opened

__all__ = ["optimise_sheets", "topo"]

SURVEY, TABLES = "survey.json", "tables.txt"


def topo(
    name: str | os.PathLike[str],
    *,
    twin: bool = True,
    layers: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> Survey:
    """Topographic metrics of a model, its twin and a control with shuffled positions, on the same sheets.

    Args:
        name: a zoo entry, a checkpoint folder, or ``hf:owner/name[@revision]``.
        twin: measure the twin of a topographic entry too.
        layers: with a sheet; by default all.
        metrics: registered names; None for all whose stimuli are on this machine, the others being named in
            ``missing``.
        out: folder for ``survey.json``, all its tables, and the figures, PNG and SVG.
        fresh: lay out new retinotopic sheets instead of the model's own.
        seed: of resamples, of the shuffled control, and of new sheets.
        device: where the networks run: ``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``.
        progress: told what is being measured or drawn.

    Returns:
        The survey; shown it is a summary, ``text()`` has all figures, ``document()`` is its plain values.

    Raises:
        UsageError: an unknown name, layer or metric, a model without sheets, or a folder that cannot be used.
        MissingError: stimuli of a metric that was asked for are not on this machine.
        MissingError, IntegrityError: as :func:`tdsnn.load`.
    """
    chosen = _choose(os.fspath(name), twin=twin, layers=layers, fresh=fresh, seed=seed, device=device)
    if out is not None:
        require_folder(Path(out))
        _require_own(Path(out), chosen.subjects)
    # After all that can be refused, because it can take half a minute.
    for opened in chosen.subjects.values():
        _compile(opened)
    found = survey(
        {subject: opened.model for subject, opened in chosen.subjects.items()},
        chosen.sheets,
        shape=chosen.shape,
        metrics=metrics,
        seed=seed,
        weights={subject: opened.weights_sha256 for subject, opened in chosen.subjects.items()},
        progress=progress,
    )
    if out is not None:
        text = json.dumps(found.document(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        write_atomic(Path(out) / SURVEY, text.encode())
        write_atomic(Path(out) / TABLES, f"{found.text()}\n".encode())
        draw(found, Path(out), progress=progress)
    return found


def optimise_sheets(
    name: str | os.PathLike[str],
    *,
    out: str | Path,
    attempts_per_unit: float = 100.0,
    seed: int = 0,
    force: bool = False,
    device: str = "auto",
    progress: Progress = silent,
) -> Mapping[str, CorticalSheet]:
    """Lay out new sheets and let units that respond alike to gratings become neighbours.

    A stopped search was saved, and goes on where it was.

    Args:
        name: as of :func:`topo`.
        out: folder for a checkpoint with the same weights and the new sheets.
        attempts_per_unit: swaps tried for each unit, above 0.
        seed: of the places and of the swaps.
        force: replace the checkpoint that ``out`` has.
        device: as of :func:`topo`.
        progress: told how far the search in each layer is.

    Returns:
        Layer to sheet.

    Raises:
        UsageError, MissingError, IntegrityError: as :func:`tdsnn.load`.
        UsageError: ``out`` is not empty, or cannot be a folder.
        GateError: a layer that answers nothing or no number.
    """
    require_folder(Path(out))
    if not force:
        require_free(Path(out))
    opened = zoo.open_model(name, device=device)
    _compile(opened)
    shape = DATASETS.load(opened.config.dataset).shape
    specs = opened.model.sheet_specs.values()
    topography = Topography(sheet_seed=seed, attempts_per_unit=attempts_per_unit)
    opened.model.sheets = prepare_sheets(
        fresh_sheets(opened.model, specs, topography, image_shape=shape),
        opened.model,
        topography,
        shape=shape,
        source={"model": opened.config.name, "weights_sha256": opened.weights_sha256},
        folder=paths.cache_dir() / "positions" / f"{opened.weights_sha256[:12]}-{seed}-{attempts_per_unit:g}",
        progress=progress,
    )
    zoo.save(opened.model, Path(out), name=opened.config.name, dataset=opened.config.dataset)
    return opened.model.sheets


def _require_own(out: Path, subjects: Mapping[str, Opened]) -> None:
    """Refuse a folder with the survey of other models, whose figures would lie among the new ones.

    What is no survey is replaced as any result is.
    """
    there: Any = None
    with suppress(OSError, ValueError):
        there = read_json(out / SURVEY)
    known = there.get("subjects") if isinstance(there, dict) else None
    if isinstance(known, list) and known[:-1] != [*subjects]:
        raise UsageError(
            f"'{out}' has the maps of {' and '.join(map(str, known[:-1]))}.", hint="Name another folder."
        )


def _compile(opened: Opened) -> None:
    if device_of(opened.model).type == "cpu":
        opened.model.compile_operators()


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What a survey is about."""

    subjects: Mapping[str, Opened]
    """The model first."""
    sheets: Mapping[str, CorticalSheet]
    shape: tuple[int, int, int]
    """(C, H, W) of the images."""


def _choose(name: str, *, twin: bool, layers: Sequence[str], fresh: bool, seed: int, device: str) -> _Chosen:
    meant = naming.parse(name)
    entry = manifest.resolve(meant) if isinstance(meant, str) else None
    opened = zoo.open_model(name, device=device)
    subjects = {opened.config.name: opened}
    if twin and entry is not None and entry.topographic:
        subjects[f"{entry.twin} (twin)"] = zoo.open_model(entry.twin, device=device)
    shape = DATASETS.load(opened.config.dataset).shape
    sheets = opened.model.sheets
    if fresh:
        specs = opened.model.sheet_specs.values()
        sheets = fresh_sheets(opened.model, specs, Topography(sheet_seed=seed), image_shape=shape)
    if not sheets:
        raise UsageError(
            f"'{name}' has no cortical sheet.",
            hint=f"Measure it on new ones: tdsnn-zoo topo {quote(name)} --fresh-sheets",
        )
    for layer in layers:
        if layer not in sheets:
            raise suggest(layer, sheets, kind="layer with a sheet")
    return _Chosen(
        subjects=subjects, sheets={layer: sheets[layer] for layer in layers or sheets}, shape=shape
    )
