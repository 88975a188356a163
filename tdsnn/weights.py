"""Checkpoints on disk: a folder with ``config.json`` and ``model.safetensors``, as in a Hub repository.

The safetensors file holds the model's tensors under ``model.<key>`` and the positions of each cortical
sheet under ``sheets.<layer>.positions`` (units, 2) float32 mm. A matrix or kernel whose values are numbers of
half precision is stored as such and read back as float32: the same values in half the space.
``config.json`` says how to rebuild the model and pins the SHA-256 of the safetensors file and of itself, so
that damage and edits show even without a release. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from tdsnn.errors import IntegrityError, TdsnnError, UsageError
from tdsnn.files import atomic, digest_of, read_json, verify
from tdsnn.schema import WEIGHTS_FILE as WEIGHTS_FILE
from tdsnn.schema import Count, FileRecord, Sha256, SheetRecord, Table, plain
from tdsnn.validation import check

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
_SCHEMA = 1
_SEAL = "sha256"
_MODEL = "model."
_SHEETS, _POSITIONS = "sheets.", ".positions"


class CheckpointConfig(Table, frozen=True, kw_only=True):
    """What ``config.json`` says about the tensors beside it."""

    name: str
    """Zoo entry, or any name for a model outside the zoo."""
    architecture: str
    """Registered name that rebuilds the model from ``arguments``."""
    arguments: dict[str, Any]
    dataset: str
    timesteps: Annotated[int, Meta(ge=1)]
    """T that the model was trained with."""
    sheets: dict[str, SheetRecord]
    """Layer name to the sheet's metadata (everything but its positions)."""


class _Pinned(Table, frozen=True, kw_only=True):
    size: Count
    sha256: Sha256


class _ConfigFile(CheckpointConfig, frozen=True, kw_only=True):
    """``config.json``."""

    schema: Literal[1]
    weights: _Pinned
    sha256: Sha256 | UnsetType = UNSET
    """Of everything else here, so that no edit runs under the name of what was saved; files from before there
    was it are vouched for by a release, if by anything."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint read into memory."""

    config: CheckpointConfig
    state: dict[str, Tensor]
    """The model's ``state_dict``, on the CPU."""
    positions: dict[str, Tensor]
    """Layer name to unit positions (units, 2), float32, mm."""


def save_checkpoint(
    folder: Path, *, state: Mapping[str, Tensor], positions: Mapping[str, Tensor], config: CheckpointConfig
) -> None:
    """Write a checkpoint folder: both files are complete before either is replaced; equal input, equal bytes.

    Args:
        state: the model's ``state_dict``; tensors may be on any device.
        positions: layer name to (units, 2) float32, mm; the same layers as ``config.sheets``.

    Raises:
        UsageError: values that are not finite, or a configuration that could not be read again.
        TdsnnError: the folder cannot be written or the disk is full; what was there is as it was.
    """
    from safetensors.torch import save

    _require_finite(state, name=f"The model '{config.name}'", error=UsageError)
    _require_readable(config)
    tensors = {_MODEL + key: _shortened(value) for key, value in state.items()}
    tensors |= {f"{_SHEETS}{layer}{_POSITIONS}": value for layer, value in positions.items()}
    # clone(): safetensors refuses tensors that share memory, as tied or expanded weights do.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    weights = save(own, metadata={"format": "pt"})
    pinned = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    document = {"schema": _SCHEMA, **plain(config), "weights": pinned}
    document[_SEAL] = digest_of(document)
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic(folder / CONFIG_FILE) as description, atomic(folder / WEIGHTS_FILE) as tensors_file:
        tensors_file.write_bytes(weights)
        description.write_bytes(text.encode())


def _require_readable(config: CheckpointConfig) -> None:
    """Refuse a configuration that is not the same after a way through JSON, or that no reader takes."""
    name, hint = (
        f"The configuration of '{config.name}'",
        "Plain numbers, texts, lists and tables can be saved.",
    )
    try:
        document = json.loads(json.dumps(plain(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be written as JSON: {error}.", hint=hint) from error
    check(document, CheckpointConfig, name=name, hint=hint)


def _require_finite(state: Mapping[str, Tensor], *, name: str, error: type[TdsnnError]) -> None:
    """Refuse tensors with infinities or NaN: spikes hide them, since NaN reaches no threshold."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise error(
                f"{name} has values in the tensor '{key}' that are not finite.",
                hint="The training that it is from diverged: train it again, for example at a lower rate.",
            )


def _shortened(value: Tensor) -> Tensor:
    """A float32 matrix or kernel in half precision, if that changes nothing."""
    import torch

    short = value.half() if value.ndim > 1 and value.dtype == torch.float32 else value
    return short if bool((short == value).all()) else value


def verify_checkpoint(
    folder: Path, *, known: FileRecord | None = None
) -> tuple[CheckpointConfig, FileRecord]:
    """Check ``config.json`` and the hash of the safetensors file that it pins, without reading any tensor.

    Args:
        known: what the safetensors file was found to be a moment ago, so that it is not hashed again.

    Returns:
        What ``config.json`` says, and what the safetensors file is.

    Raises:
        IntegrityError: a file is missing, truncated or altered, or ``config.json`` breaks the schema.
    """
    config, pinned = _read_config(folder / CONFIG_FILE)
    if known != pinned:
        verify(folder / WEIGHTS_FILE, pinned)
    return config, pinned


def read_checkpoint(folder: Path, *, known: FileRecord | None = None) -> Checkpoint:
    """Read and check a checkpoint folder.

    Args:
        known: as for :func:`verify_checkpoint`.

    Raises:
        IntegrityError: a file is missing, truncated or altered, or breaks the schema above.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, _ = verify_checkpoint(folder, known=known)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise IntegrityError(f"'{folder / WEIGHTS_FILE}' is not a safetensors file: {error}.") from error
    state, positions = {}, {}
    for key, value in tensors.items():
        if key.startswith(_MODEL):
            state[key.removeprefix(_MODEL)] = value.float() if value.dtype == torch.float16 else value
        elif key.startswith(_SHEETS) and key.endswith(_POSITIONS):
            positions[key.removeprefix(_SHEETS).removesuffix(_POSITIONS)] = value
        else:
            raise IntegrityError(f"'{folder / WEIGHTS_FILE}' has an unexpected tensor '{key}'.")
    _require_finite(state, name=f"'{folder / WEIGHTS_FILE}'", error=IntegrityError)
    _check_sheets(folder, config, positions)
    return Checkpoint(config=config, state=state, positions=positions)


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: Path) -> None:
    """Compare keys, shapes and types of a checkpoint with the model it is for.

    Args:
        state: what was read.
        expected: the model's own ``state_dict``.
        source: folder named in the message.

    Raises:
        IntegrityError: names the first tensor that is missing, unexpected, or of another shape or type.
    """
    difference = state_difference(state, expected)
    if difference:
        raise IntegrityError(f"The checkpoint '{source}' does not fit its architecture: {difference}.")


def state_difference(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the first tensor that is missing, unexpected, or of another shape or type."""
    for key, wanted in expected.items():
        if key not in state:
            return f"it lacks the tensor '{key}'"
        found = state[key]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return (
                f"the tensor '{key}' is {found.dtype} {tuple(found.shape)}, "
                f"but the model needs {wanted.dtype} {tuple(wanted.shape)}"
            )
    odd = next((key for key in state if key not in expected), None)
    return odd and f"it has an unexpected tensor '{odd}'"


def _read_config(path: Path) -> tuple[CheckpointConfig, FileRecord]:
    if not path.is_file():
        raise IntegrityError(f"'{path}' is missing from the checkpoint.")
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"'{path}' is not valid JSON: {error}.") from error
    file = check(document, _ConfigFile, name=f"'{path}'", error=IntegrityError)
    if file.sha256 is not UNSET and not _is_as_saved(document):
        raise IntegrityError(
            f"'{path}' was changed since it was saved.",
            hint="Get the checkpoint again. To save another network, build it, load these weights and "
            "call its save_pretrained(FOLDER).",
        )
    # As they are in the document: saved again, they give the same bytes.
    config = CheckpointConfig(**{field: document[field] for field in CheckpointConfig.__struct_fields__})
    return config, FileRecord(path=WEIGHTS_FILE, size=file.weights.size, sha256=file.weights.sha256)


def _is_as_saved(document: dict[str, Any]) -> bool:
    """Whether a sealed document is what was sealed; takes the seal away."""
    seal = document.pop(_SEAL)
    try:
        return bool(seal == digest_of(document))
    except ValueError:  # a number that JSON has no form for, and so was never written
        return False


def _check_sheets(folder: Path, config: CheckpointConfig, positions: Mapping[str, Tensor]) -> None:
    import torch

    if set(positions) != set(config.sheets):
        odd = min(set(positions) ^ set(config.sheets))
        raise IntegrityError(f"'{folder}' describes the sheet of layer '{odd}' in only one of its two files.")
    for layer, value in positions.items():
        if (
            value.dtype != torch.float32
            or value.ndim != 2
            or value.shape[1] != 2
            or not value.isfinite().all()
        ):
            raise IntegrityError(
                f"The positions of layer '{layer}' in '{folder}' need finite float32 (units, 2), "
                f"not {value.dtype} {tuple(value.shape)}."
            )
