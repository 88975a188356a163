"""A network and its sheets before training.

Pre-optimised sheets are searched layer by layer and saved between rounds, so that a stopped search goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import atomic
from tdsnn.kernels._library import library
from tdsnn.models._base import MODELS, Model, sheet_shapes
from tdsnn.progress import Progress, named, silent
from tdsnn.topography.gratings import gratings
from tdsnn.topography.positions import PositionSearch, PositionState
from tdsnn.topography.responses import respond
from tdsnn.topography.sheets import CorticalSheet, build_sheets
from tdsnn.types import Manifest, Topography

_SAVE_EVERY_S = 5.0


def fresh_model(manifest: Manifest, *, image_size: tuple[int, ...]) -> Model:
    """A model with weights drawn from the recipe's seed, on sheets drawn from the topography's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(manifest.recipe.seed)
        model = MODELS.load(manifest.architecture)(**manifest.arguments)
    model.sheets = fresh_sheets(model, manifest.topography, image_size=image_size)
    return model


def fresh_sheets(
    model: Model, topography: Topography, *, image_size: tuple[int, ...]
) -> dict[str, CorticalSheet]:
    """Retinotopic sheets of a model's sheet layers for images of a size (H, W)."""
    height, width = image_size
    shapes = sheet_shapes(model, height=height, width=width)
    return build_sheets(shapes, model.sheet_sizes_mm, seed=topography.sheet_seed, units_mm=topography.unit_mm)


def prepare_sheets(
    sheets: Mapping[str, CorticalSheet],
    auxiliary: Model,
    topography: Topography,
    *,
    shape: tuple[int, int, int],
    source: Mapping[str, Any],
    folder: Path,
    progress: Progress = silent,
) -> dict[str, CorticalSheet]:
    """Sheets whose units changed places by what an auxiliary network answers to gratings.

    Args:
        sheets: layer to sheet, retinotopic.
        auxiliary: a trained network of the same architecture without spatial loss.
        shape: (C, H, W) of the images.
        source: what the auxiliary network is, as JSON values for the log of the sheets.
        folder: where the state of the search is kept; what is finished there is not done again.

    Raises:
        UsageError: the layers of the auxiliary network have other shapes.
        GateError: a layer that answers nothing or no number.
        IntegrityError: a saved state that cannot be read or belongs to other sheets.
    """
    stimuli = gratings(shape)
    answers = respond(auxiliary, stimuli, tuple(sheets))
    for layer, sheet in sheets.items():
        if answers[layer].shape != sheet.shape:
            raise UsageError(
                f"The auxiliary network's '{layer}' gives {answers[layer].shape}, but the sheet is for "
                f"{sheet.shape}.",
                hint="Train with the twin's architecture, or with --set topography.preparation=retinotopic",
            )
    log = {"stimuli": f"{len(stimuli.images)} {stimuli.name}", **source}
    prepared = {}
    for layer, sheet in sheets.items():
        search = PositionSearch(
            sheet,
            # Compiled, one core needs 11 s for all sheets of width 16; the way through CUDA was not measured.
            answers[layer].rates.to("cpu" if library() else auxiliary.mean.device),
            attempts_per_unit=topography.attempts_per_unit,
            seed=topography.sheet_seed,
            compiled=bool(library()),
        )
        path = folder / f"{layer}.safetensors"
        state = _run(search, path, source, named(progress, layer))
        prepared[layer] = search.result(state, log)
    return prepared


def _run(search: PositionSearch, path: Path, source: Mapping[str, Any], progress: Progress) -> PositionState:
    state = _load(path, source) if path.is_file() else search.start()
    saved = time.monotonic()
    try:
        while not search.finished(state):
            state = search.advance(state)
            progress(min(state.attempts, search.budget), search.budget)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                _save(state, path, source)
                saved = time.monotonic()
    finally:
        _save(state, path, source)
    return state


def _save(state: PositionState, path: Path, source: Mapping[str, Any]) -> None:
    numbers = {key: value for key, value in asdict(state).items() if key != "sites"}
    about = {"search": json.dumps(numbers), "source": json.dumps(dict(source), sort_keys=True)}
    with atomic(path) as temporary:
        save_file({"sites": state.sites}, temporary, metadata=about)


def _load(path: Path, source: Mapping[str, Any]) -> PositionState:
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            numbers = json.loads(about["search"])
            if json.loads(about.get("source", "{}")) != dict(source):
                raise ValueError("it was made with the responses of another network")
            numbers["alignment"] = tuple((spent, r) for spent, r in numbers["alignment"])
            return PositionState(sites=file.get_tensor("sites"), **numbers)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"The saved search '{path}' is damaged: {error}.", hint=f"Remove it to start anew: rm '{path}'"
        ) from error
