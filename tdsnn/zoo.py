"""Find, fetch, verify, load and save checkpoints of the zoo."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tdsnn import hub, paths
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.files import copy_atomic, set_aside, sha256_of, verify
from tdsnn.manifest import load_release, resolve
from tdsnn.types import Release
from tdsnn.weights import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointConfig,
    check_state,
    read_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)

if TYPE_CHECKING:
    from tdsnn.models._base import Model

Source = Literal["path", "embedded", "cache", "hub"]


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a verified checkpoint lies on this machine."""

    name: str
    """Full zoo name; for an explicit path, the name in its ``config.json``."""
    folder: Path
    source: Source
    """``path`` (given), ``embedded`` (in the project), ``cache`` (fetched before), ``hub`` (fetched now)."""
    release: Release | None
    """None for an explicit path."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model in memory and the checkpoint that it is from."""

    model: Model
    config: CheckpointConfig
    location: Location
    weights_sha256: str
    """Content of ``model.safetensors``, 64 hex digits, as verified."""


def is_path(name: str) -> bool:
    """Whether text names the folder of a checkpoint rather than a zoo entry."""
    return os.sep in name or name in (".", "..", "~")


def available(name: str) -> Source | None:
    """Where the weights of a zoo entry would come from; None when none were released. Reads no weights."""
    release = load_release(name)
    return None if release is None else source_of(release)


def source_of(release: Release) -> Source | None:
    """Where the weights of a release would come from; None when they are nowhere. Reads no weights."""
    if _embedded(release.name).is_dir():
        return "embedded"
    folder = _cached(release)
    if all((folder / record.path).is_file() for record in release.files):
        return "cache"
    return "hub" if release.hub_repo else None


def locate(name: str | os.PathLike[str]) -> Location:
    """Find a checkpoint and verify every file of it against the release.

    Args:
        name: a zoo entry, full or bare, or the folder of a checkpoint (a ``Path``, or text with a separator).
            Order for a zoo entry: embedded store, cache, Hub.

    Raises:
        UsageError: unknown name or no such folder.
        MissingError: nothing was released, or the Hub cannot be reached.
        IntegrityError: a file differs from the release; one in the cache is kept as ``<name>.corrupt``.
    """
    if not isinstance(name, str) or is_path(name):
        return _explicit(Path(name).expanduser())
    full = resolve(name).name
    release = _release(full)
    source = source_of(release)
    if source == "embedded":
        folder = _embedded(full)
        _verify(release, folder, hint="Restore it with git checkout, or reinstall tdsnn-zoo.")
        return Location(name=full, folder=folder, source="embedded", release=release)
    folder = _cached(release)
    if source == "cache":
        _verify_cached(release, folder)
        return Location(name=full, folder=folder, source="cache", release=release)
    _fetch(release, folder)
    return Location(name=full, folder=folder, source="hub", release=release)


def download(name: str, *, to: Path | None = None) -> Location:
    """Make sure that a verified copy of a zoo entry lies on this machine, or in the folder ``to``.

    An embedded entry needs no network. Without ``to``, the answer says where the files are.

    Raises:
        UsageError: unknown name, or ``to`` holds files with other content.
        MissingError, IntegrityError: as :func:`locate`.
    """
    location = locate(name)
    if location.release is None:
        raise UsageError(f"'{name}' is a folder, not a zoo entry.", hint="See the known ones: tdsnn-zoo list")
    if to is None:
        return location
    records = location.release.files
    for record in records:
        target = to / record.path
        if target.exists() and (not target.is_file() or sha256_of(target) != record.sha256):
            raise UsageError(
                f"'{target}' exists and is not the file of {location.name}.",
                hint="Choose an empty folder for --to.",
            )
    for record in records:
        copy_atomic(location.folder / record.path, to / record.path)
    _verify(location.release, to, hint="Run the command again.")
    return Location(name=location.name, folder=to, source=location.source, release=location.release)


def load(name: str | os.PathLike[str], *, device: str = "cpu", compile: bool = False) -> Model:
    """Load a model with its cortical sheets, in eval mode: ``tdsnn.load("tsresnet18")``.

    Args:
        name: as for :func:`locate`.
        device: ``cpu``, ``cuda``, ``cuda:INDEX`` or ``auto``.
        compile: on CPU, use the compiled operators (made once, in about 20 s). Without a C++ compiler the
            model stays on the eager path, with equal results; ``tdsnn-zoo doctor`` says why.

    Raises:
        UsageError, MissingError, IntegrityError: as :func:`locate`; also for a device that is not there and
            for tensors that do not fit the architecture.
    """
    model = open_model(name, device=device).model
    if compile and model.mean.device.type == "cpu":
        model.compile_operators()
    return model


def open_model(name: str | os.PathLike[str], *, device: str = "cpu") -> Opened:
    """As :func:`load`, with what the checkpoint says about the model."""
    from tdsnn.runtime import choose_device

    target = choose_device(device)
    location = locate(name)
    checkpoint = read_checkpoint(location.folder)
    config = checkpoint.config
    model = _build(config, location.folder)
    check_state(checkpoint.state, model.state_dict(), source=location.folder)
    model.load_state_dict(checkpoint.state)
    _attach_sheets(model, config.sheets, checkpoint.positions, location.folder)
    return Opened(
        model=model.eval().to(target),
        config=config,
        location=location,
        weights_sha256=_weights_sha256(location),
    )


def save(model: Model, folder: Path, *, name: str, dataset: str) -> None:
    """Write a model and its sheets as a checkpoint folder that :func:`load` reads.

    Args:
        name: zoo entry that the checkpoint belongs to, or any name of your own.
        dataset: registered name of the dataset it was trained on.
    """
    config = CheckpointConfig(
        name=name,
        architecture=model.architecture,
        arguments=dict(model.arguments),
        dataset=dataset,
        timesteps=model.timesteps,
        sheets={layer: sheet.metadata() for layer, sheet in model.sheets.items()},
    )
    positions = {layer: sheet.positions for layer, sheet in model.sheets.items()}
    save_checkpoint(folder, state=model.state_dict(), positions=positions, config=config)


def _explicit(folder: Path) -> Location:
    if not folder.is_dir():
        raise UsageError(
            f"There is no checkpoint folder '{folder}'.",
            hint=f"Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or a zoo model: tdsnn-zoo list",
        )
    try:
        config = verify_checkpoint(folder)
    except IntegrityError as error:
        error.hint = "Copy the folder anew from where it came; nothing in it was changed."
        raise
    return Location(name=config.name, folder=folder, source="path", release=None)


def _weights_sha256(location: Location) -> str:
    if location.release is None:
        return sha256_of(location.folder / WEIGHTS_FILE)
    return next(record.sha256 for record in location.release.files if record.path == WEIGHTS_FILE)


def _release(name: str) -> Release:
    release = load_release(name)
    if release is None:
        raise MissingError(
            f"No weights of '{name}' were released.", hint=f"Train them: tdsnn-zoo train {name}"
        )
    lacking = {CONFIG_FILE, WEIGHTS_FILE} - {record.path for record in release.files}
    if lacking:
        raise IntegrityError(f"The release of '{name}' does not list {' and '.join(sorted(lacking))}.")
    return release


def _embedded(name: str) -> Path:
    return paths.bundled("zoo", "checkpoints", name)


def _cached(release: Release) -> Path:
    # The content is part of the name, so a new release never meets the files of an older one.
    content = "".join(sorted(f"{record.path}\0{record.sha256}\n" for record in release.files))
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    return paths.cache_dir() / "checkpoints" / f"{release.name}-{key}"


def _verify(release: Release, folder: Path, *, hint: str) -> None:
    for record in release.files:
        try:
            verify(folder / record.path, record)
        except IntegrityError as error:
            error.hint = hint
            raise


def _verify_cached(release: Release, folder: Path) -> None:
    for record in release.files:
        path = folder / record.path
        try:
            verify(path, record)
        except IntegrityError as error:
            aside = set_aside(path)
            error.hint = f"It was kept as {aside}; fetch it anew: tdsnn-zoo download {release.name}"
            raise


def _fetch(release: Release, folder: Path) -> None:
    if not release.hub_repo or not release.hub_commit:
        raise MissingError(
            f"The weights of '{release.name}' are neither embedded, nor cached, nor on a Hub.",
            hint=f"Train them: tdsnn-zoo train {release.name}",
        )
    for record in release.files:
        fetched = hub.fetch_file(
            release.hub_repo, record.path, commit=release.hub_commit, sha256=record.sha256, size=record.size
        )
        copy_atomic(fetched, folder / record.path)


def _build(config: CheckpointConfig, folder: Path) -> Model:
    from tdsnn.models._base import MODELS

    builder = MODELS.load(config.architecture)
    try:
        inspect.signature(builder).bind(**config.arguments)
    except TypeError as error:
        raise IntegrityError(
            f"'{folder / CONFIG_FILE}' does not fit {config.architecture}: {error}."
        ) from error
    return builder(**config.arguments)


def _attach_sheets(
    model: Model, metadata: Mapping[str, Any], positions: Mapping[str, Any], folder: Path
) -> None:
    from tdsnn.topography.sheets import CorticalSheet

    for layer in positions:
        try:
            sheet = CorticalSheet.from_metadata(layer, metadata[layer], positions[layer])
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"'{folder / CONFIG_FILE}' describes the sheet of '{layer}' badly: {error}."
            ) from error
        if layer not in model.sheet_layers:
            raise IntegrityError(
                f"'{folder}' has a sheet for '{layer}', which {model.architecture} does not have."
            )
        model.sheets[layer] = sheet
