"""The state of a run on disk: written atomically, read back exactly."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeVar

import torch
from filelock import FileLock
from msgspec import Meta
from msgspec.structs import replace

from tdsnn import manifest as manifests
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.files import digest_of, parse_json, read_json, write_atomic
from tdsnn.origin import Origin, require_same
from tdsnn.schema import Count, Manifest, Sha256, Share, Table, plain, split_options
from tdsnn.topography.losses._base import complete
from tdsnn.validation import check

STATE = "state.pt"
OUTCOME = "outcome.json"
CHECKPOINT = "checkpoint"
SETTINGS = "manifest.json"

_SEAL = b"\nsha256 "
"""Between a state and the digest of its content."""
_DAMAGED = (
    *(RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, ImportError, pickle.UnpicklingError),
)
"""What PyTorch's reader makes of bytes that are no state."""
Recorded = TypeVar("Recorded", bound=Table)


def begun(folder: Path) -> bool:
    """Whether a run has made anything that depends on its settings; until then they may be others."""
    return any((folder / name).exists() for name in (STATE, OUTCOME))


def lock_of(folder: Path) -> FileLock:
    """Held by whoever trains in a folder; it goes with its process, however that ends.

    There is one for each folder and process, so that who holds it may ask again.
    """
    return _lock(folder.resolve())


@cache
def _lock(folder: Path) -> FileLock:
    # Kept here: a lock that nobody refers to is released.
    return FileLock(folder / ".lock")


class Outcome(Table, frozen=True, kw_only=True):
    """What a finished run says of itself, in ``outcome.json``."""

    name: str
    """Full name of the zoo entry."""
    held_out_accuracy: Share | None = None
    """Fraction of the held-out images; None of a run from before there were any."""
    n: Count = 0
    """Held-out images."""
    held_out_robust_accuracy: Share | None = None
    """Of the first held-out images under PGD-10 in the ball of adversarial training; None without."""
    data_digests: dict[str, str]
    cpu_seconds: Annotated[float, Meta(ge=0, le=1e300)] | None = None
    """Of all threads; None of a run that did not count them."""
    checkpoint: str = ""
    """Folder."""
    weights_sha256: Sha256 | None = None
    """Of the checkpoint; None of a run from before it was stated."""
    environment: dict[str, Any]


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Say that a run is finished."""
    write_atomic(folder / OUTCOME, (json.dumps(plain(outcome), indent=2) + "\n").encode())


def read_outcome(folder: Path) -> Outcome | None:
    """What a finished run says of itself; None if it is not finished.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = folder / OUTCOME
    return read_recorded(
        path, Outcome, hint=f"Remove it, and --resume writes it again: rm {quote(str(path))}"
    )


def read_recorded(path: Path, kind: type[Recorded], *, hint: str) -> Recorded | None:
    """What the program left in a file of a run's folder; None if there is no such file.

    Raises:
        IntegrityError: the file is damaged; ``hint`` says what helps.
    """
    try:
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise IntegrityError(f"'{path}' is damaged: {error}.", hint=hint) from error
    return check(document, kind, name=f"'{path}'", recorded=True, error=IntegrityError, hint=hint)


def read_log(path: Path, *, growing: bool = False) -> list[dict[str, Any]]:
    """The lines of a run's log, one for each epoch.

    Args:
        growing: leave out a last line that is not complete, as a kill or a training now may leave it.

    Raises:
        IntegrityError: it is missing or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = [parse_json(line) for line in text[: text.rfind("\n") + 1 if growing else None].splitlines()]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("a line is no table")
        return lines
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"The log '{path}' cannot be read: {error}.", hint="Train the run again, with another --run-dir."
        ) from error


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """All that decides the run, as plain values; the manifest has all options of its spatial loss."""
    document = manifest.document()
    return {part: document[part] for part in ("architecture", "arguments", "dataset", "topography", "recipe")}


def settings_digest(manifest: Manifest) -> str:
    """sha256 of :func:`settings_of`, 64 hex digits."""
    return digest_of(settings_of(manifest))


def write_settings(folder: Path, manifest: Manifest) -> None:
    """Keep the settings of a run beside its state."""
    write_atomic(folder / SETTINGS, (json.dumps(manifest.document(), indent=2) + "\n").encode())


def read_settings(folder: Path) -> Manifest:
    """Manifest that a run began with; fields that are newer than the run have their defaults.

    Raises:
        UsageError: there is no run.
        IntegrityError: the file is damaged.
    """
    path = folder / SETTINGS
    name, hint = f"'{path}'", "Start anew with another --run-dir."
    try:
        document = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"There is no run in {folder}, so there is nothing to resume.",
            hint="Leave --resume out to start one.",
        ) from error
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{name} cannot be read: {error}.", hint=hint) from error
    if isinstance(document, dict) and "topography" in document:
        document["topography"] = split_options(document["topography"])
    manifest = check(document, Manifest, name=name, recorded=True, error=IntegrityError, hint=hint)
    topography = complete(manifest.topography, name=name, recorded=True, error=IntegrityError, hint=hint)
    return replace(manifest, topography=topography)


def check_settings(folder: Path, manifest: Manifest) -> None:
    """Refuse to continue or to release a run under other settings.

    Raises:
        UsageError: the recipe, topography or model differ from those the run began with.
    """
    stored, here = settings_of(read_settings(folder)), settings_of(manifests.complete(manifest))
    if stored != here:
        path, then, now = _difference(stored, here)
        raise UsageError(
            f"The run in {folder} began with {then!r} for '{path}', but '{manifest.name}' has {now!r} here.",
            hint="To go on as it began, resume without --set; to release it, put its settings into the "
            "manifest; or choose another --run-dir.",
        )


def _difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any]:
    """Dotted path of the first difference of two documents, and both values there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        key = next(key for key in {**one, **other} if one.get(key) != other.get(key))
        return _difference(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    return path, one, other


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the saved state in one step, so that a crash leaves the old one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomic(folder / STATE, content + _SEAL + hashlib.sha256(content).hexdigest().encode())


def keep_lines(path: Path, count: int) -> None:
    """Cut a log down to its first ``count`` lines; what follows belongs to steps that are done again."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    if len(lines) > count:
        write_atomic(path, b"".join(lines[:count]))


def load_state(folder: Path, *, origin: Origin | None = None) -> dict[str, Any]:
    """The last saved state.

    Args:
        origin: what it must come from; None takes any.

    Raises:
        UsageError: there is none, or it has another origin.
        IntegrityError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        raise UsageError(
            f"There is no saved state in {folder}, so there is nothing to resume.",
            hint="Leave --resume out to start the run.",
        )
    try:
        content, _, digest = path.read_bytes().rpartition(_SEAL)
        # Without a digest too: one that cannot be found may be one that was damaged.
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("its content was changed")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it is no table")
    except _DAMAGED as error:
        raise IntegrityError(
            f"The saved state {path} is damaged ({type(error).__name__}).",
            hint="Start anew with another --run-dir; the log of this run is kept.",
        ) from error
    require_same(
        state.get("origin", {}),
        origin or {},
        what=f"The saved state '{path}'",
        hint="Resume with what the run began with, or start anew with another --run-dir.",
    )
    return state
