"""The state of a run on disk: written atomically, read back exactly."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import read_json, write_atomic
from tdsnn.types import Manifest, Recipe, Topography

STATE = "state.pt"
OUTCOME = "outcome.json"
CHECKPOINT = "checkpoint"
SETTINGS = "manifest.json"


def begun(folder: Path) -> bool:
    """Whether a run has made anything that depends on its settings; until then they may be others."""
    return any((folder / name).exists() for name in (STATE, OUTCOME))


def lock_of(folder: Path) -> FileLock:
    """Held by whoever trains in a folder; it goes with its process, however that ends."""
    # One for each folder and process, so that who holds it may ask again.
    return FileLock(folder / ".lock", is_singleton=True)


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """What a finished run says of itself; None if it is not finished.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / OUTCOME
    try:
        outcome = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged_outcome(path, str(error)) from error
    if not isinstance(outcome, dict):
        raise _damaged_outcome(path, "it is no JSON object")
    for key, kind in _OUTCOME_KEYS.items():
        if type(outcome.get(key)) is not kind:
            raise _damaged_outcome(path, f"it needs a value of type {kind.__name__} for '{key}'")
    # Runs of before there were held-out images have neither.
    for key, highest in (("held_out_accuracy", 1.0), ("cpu_seconds", math.inf)):
        value = outcome.setdefault(key, None)
        if value is not None and not (type(value) in (int, float) and 0 <= value <= highest):
            raise _damaged_outcome(path, f"'{key}' cannot be {value!r}")
    return outcome


_OUTCOME_KEYS: Mapping[str, type[Any]] = {"name": str, "data_digests": dict, "environment": dict}


def _damaged_outcome(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(
        f"'{path}' is damaged: {reason}.",
        hint=f"Remove it, and --resume writes it again: rm '{path}'",
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, one for each epoch.

    Raises:
        IntegrityError: it is missing or damaged.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"The log '{path}' cannot be read: {error}.", hint="Train the run again, with another --run-dir."
        ) from error


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
        UsageError: there is no run.
        IntegrityError: the file is damaged.
    """
    try:
        stored: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        for part, record in (("topography", Topography()), ("recipe", Recipe())):
            stored[part] = json.loads(json.dumps(dataclasses.asdict(record))) | stored[part]
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no run in {folder}, so there is nothing to resume.",
            hint="Leave --resume out to start one.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(
            f"The settings of the run in {folder} cannot be read ({error}).",
            hint="Start anew with another --run-dir.",
        ) from error
    return stored


def check_settings(folder: Path, manifest: Manifest) -> None:
    """Refuse to continue or to release a run under other settings.

    Raises:
        UsageError: the recipe, topography or model differ from those the run began with.
    """
    stored = read_settings(folder)
    for part in ("architecture", "arguments", "dataset", "topography", "recipe"):
        if stored.get(part) != settings_of(manifest)[part]:
            raise UsageError(
                f"The run in {folder} began with another {part} than '{manifest.name}' has here.",
                hint="Give the same --set values, put them into the manifest, or choose another --run-dir.",
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
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise IntegrityError(
            f"The saved state {path} is damaged ({type(error).__name__}).",
            hint="Start anew with another --run-dir; the log of this run is kept.",
        ) from error
    return state
