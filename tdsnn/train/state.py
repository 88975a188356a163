"""The state of a run on disk: written atomically, read back exactly."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import write_atomic
from tdsnn.types import Manifest, Recipe, Topography

STATE = "state.pt"
SETTINGS = "manifest.json"


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """Everything that decides the run, as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(manifest)))
    return plain


def write_settings(folder: Path, manifest: Manifest) -> None:
    """Keep the settings of a run beside its state."""
    write_atomic(folder / SETTINGS, (json.dumps(settings_of(manifest), indent=2) + "\n").encode())


def read_settings(folder: Path) -> dict[str, Any]:
    """Settings that a run began with, as :func:`settings_of`; fields newer than the run have their defaults.

    Raises:
        IntegrityError: the file is missing or damaged.
    """
    try:
        stored: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        for part, record in (("topography", Topography()), ("recipe", Recipe())):
            stored[part] = json.loads(json.dumps(dataclasses.asdict(record))) | stored[part]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"The settings of the run in {folder} cannot be read ({error}).",
            hint="Start anew with another --run-dir.",
        ) from error
    return stored


def check_settings(folder: Path, manifest: Manifest) -> None:
    """Refuse to continue a run under other settings.

    Raises:
        UsageError: the recipe, topography or model differ from those the run began with.
    """
    stored = read_settings(folder)
    for part in ("architecture", "arguments", "dataset", "topography", "recipe"):
        if stored.get(part) != settings_of(manifest)[part]:
            raise UsageError(
                f"The run in {folder} began with another {part}; a resumed run keeps its settings.",
                hint="Give the same --set values, or start anew with another --run-dir.",
            )


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the saved state in one step, so that a crash leaves the old one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / STATE, buffer.getvalue())


def keep_lines(path: Path, count: int) -> None:
    """Cut a log down to its first ``count`` lines; what follows belongs to steps that are done again."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if len(lines) > count:
        write_atomic(path, b"".join(lines[:count]))


def load_state(folder: Path) -> dict[str, Any]:
    """The last saved state.

    Raises:
        UsageError: there is none.
        IntegrityError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise UsageError(
            f"There is no saved state in {folder}, so there is nothing to resume.",
            hint="Leave --resume out to start the run.",
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise IntegrityError(
            f"The saved state {path} is damaged ({type(error).__name__}).",
            hint="Start anew with another --run-dir; the log of this run is kept.",
        ) from error
    return state
