"""The sheets of a network: laid out anew, and pre-optimised by what another network answers.

Pre-optimised sheets are searched layer by layer and saved between rounds, so that a stopped search goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import parse_json, write_atomic
from tdsnn.kernels._library import library
from tdsnn.origin import Origin, digest_of_tensors, require_same
from tdsnn.progress import Progress, named, silent
from tdsnn.schema import Topography
from tdsnn.topography.gratings import gratings
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.outputs import device_of, sheet_shapes
from tdsnn.topography.positions import PositionSearch, PositionState
from tdsnn.topography.responses import record_responses
from tdsnn.topography.sheets import CorticalSheet, build_sheets

_SAVE_EVERY_S = 5.0


def fresh_sheets(
    model: nn.Module, specs: Iterable[SheetSpec], topography: Topography, *, image_shape: tuple[int, int, int]
) -> dict[str, CorticalSheet]:
    """Retinotopic sheets of a model's layers for images (C, H, W).

    Raises:
        UsageError: a layer that the model does not have, or that has another layout.
    """
    wanted = tuple(specs)
    shapes = sheet_shapes(model, wanted, image_shape=image_shape)
    return build_sheets(shapes, wanted, seed=topography.sheet_seed, units_mm=topography.unit_mm)


def prepare_sheets(
    sheets: Mapping[str, CorticalSheet],
    auxiliary: nn.Module,
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
        UsageError: a saved state that another network, seed or number of attempts gave.
        IntegrityError: a saved state that cannot be read.
    """
    stimuli = gratings(shape)
    answers = record_responses(auxiliary, stimuli, [sheet.spec for sheet in sheets.values()])
    for layer, sheet in sheets.items():
        if answers[layer].shape != sheet.shape:
            raise UsageError(
                f"The auxiliary network's '{layer}' gives {answers[layer].shape}, but the sheet is for "
                f"{sheet.shape}.",
                hint="Train with the twin's architecture, or with --set topography.preparation=retinotopic",
            )
    log = {"stimuli": f"{len(stimuli.images)} {stimuli.name}", **source}
    weights = digest_of_tensors(auxiliary.state_dict())
    prepared = {}
    for layer, sheet in sheets.items():
        search = PositionSearch(
            sheet,
            # Compiled, one core needs 11 s for all sheets of width 16; the way through CUDA was not measured.
            answers[layer].rates.to("cpu" if library() else device_of(auxiliary)),
            attempts_per_unit=topography.attempts_per_unit,
            seed=topography.sheet_seed,
            compiled=bool(library()),
        )
        origin = {
            "network": dict(source),
            "set of weights": weights,
            "seed": topography.sheet_seed,
            "number of attempts per unit": topography.attempts_per_unit,
            "set of stimuli": stimuli.name,
            "sheet": digest_of_tensors({layer: sheet.positions}),
        }
        saved = _SavedSearch(folder / f"{layer}.safetensors", origin)
        state = _run(search, saved, named(progress, layer))
        prepared[layer] = search.result(state, log)
    return prepared


@dataclass(frozen=True)
class _SavedSearch:
    """The file that keeps the state of one search, and what that depends on."""

    path: Path
    origin: Origin

    def write(self, state: PositionState) -> None:
        numbers = {key: value for key, value in asdict(state).items() if key != "sites"}
        about = {"search": json.dumps(numbers), "origin": json.dumps(self.origin)}
        write_atomic(self.path, save({"sites": state.sites}, metadata=about))

    def read(self) -> PositionState:
        hint = f"Remove it to start anew: rm {quote(str(self.path))}"
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata()
                numbers = parse_json(about["search"])
                # Searches of before there was an origin kept the network only.
                older = {"network": parse_json(about.get("source", "{}"))}
                origin = parse_json(about["origin"]) if "origin" in about else older
                numbers["alignment"] = tuple((spent, r) for spent, r in numbers["alignment"])
                state = PositionState(sites=file.get_tensor("sites"), **numbers)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"The saved search '{self.path}' is damaged: {error}.", hint=hint) from error
        require_same(origin, self.origin, what=f"The saved search '{self.path}'", hint=hint)
        return state


def _run(search: PositionSearch, saved: _SavedSearch, progress: Progress) -> PositionState:
    state = saved.read() if saved.path.is_file() else search.start()
    written = time.monotonic()
    try:
        while not search.finished(state):
            state = search.advance(state)
            progress(min(state.attempts, search.budget), search.budget)
            if time.monotonic() - written > _SAVE_EVERY_S:
                saved.write(state)
                written = time.monotonic()
    finally:
        saved.write(state)
    return state
