"""Checkpoints on disk: a folder with ``config.json`` and ``model.safetensors``, as in a Hub repository.

The safetensors file holds the model's tensors under ``model.<key>`` and the positions of each cortical
sheet under ``sheets.<layer>.positions`` (units, 2) float32 mm. A matrix or kernel whose values are numbers of
half precision is stored as such and read back as float32: the same values in half the space.
``config.json`` says how to rebuild the model and pins the size and SHA-256 of the safetensors file, so that
damage shows even without a release. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from tdsnn.errors import IntegrityError
from tdsnn.files import atomic, read_json, sha256_of, verify, write_atomic
from tdsnn.schema import WEIGHTS_FILE as WEIGHTS_FILE
from tdsnn.schema import Count, FileRecord, Sha256, SheetRecord, Table, plain
from tdsnn.validation import check

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "config.json"
_SCHEMA = 1
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
    """Write a checkpoint folder. Each file is replaced in one step; equal input gives equal bytes.

    Args:
        state: the model's ``state_dict``; tensors may be on any device.
        positions: layer name to (units, 2) float32, mm; the same layers as ``config.sheets``.
    """
    from safetensors.torch import save_file

    tensors = {_MODEL + key: _shortened(value) for key, value in state.items()}
    tensors |= {f"{_SHEETS}{layer}{_POSITIONS}": value for layer, value in positions.items()}
    # clone(): safetensors refuses tensors that share memory, as tied or expanded weights do.
    own = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    weights = folder / WEIGHTS_FILE
    with atomic(weights) as temporary:
        save_file(own, temporary, metadata={"format": "pt"})
        pinned = {"size": temporary.stat().st_size, "sha256": sha256_of(temporary)}
    document = {"schema": _SCHEMA, **plain(config), "weights": pinned}
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / CONFIG_FILE, text.encode())


def _shortened(value: Tensor) -> Tensor:
    """A float32 matrix or kernel in half precision, if that changes nothing."""
    import torch

    short = value.half() if value.ndim > 1 and value.dtype == torch.float32 else value
    return short if bool((short == value).all()) else value


def verify_checkpoint(folder: Path) -> CheckpointConfig:
    """Check ``config.json`` and the hash of the safetensors file that it pins, without reading any tensor.

    Raises:
        IntegrityError: a file is missing, truncated or altered, or ``config.json`` breaks the schema.
    """
    config, pinned = _read_config(folder / CONFIG_FILE)
    verify(folder / WEIGHTS_FILE, pinned)
    return config


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a checkpoint folder.

    Raises:
        IntegrityError: a file is missing, truncated or altered, or breaks the schema above.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = verify_checkpoint(folder)
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
    for key, wanted in expected.items():
        if key not in state:
            raise IntegrityError(f"The checkpoint '{source}' lacks the tensor '{key}'.")
        found = state[key]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise IntegrityError(
                f"The tensor '{key}' of the checkpoint '{source}' is {found.dtype} {tuple(found.shape)}, "
                f"but the model needs {wanted.dtype} {tuple(wanted.shape)}."
            )
    for key in state:
        if key not in expected:
            raise IntegrityError(f"The checkpoint '{source}' has an unexpected tensor '{key}'.")


def _read_config(path: Path) -> tuple[CheckpointConfig, FileRecord]:
    if not path.is_file():
        raise IntegrityError(f"'{path}' is missing from the checkpoint.")
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"'{path}' is not valid JSON: {error}.") from error
    file = check(document, _ConfigFile, name=f"'{path}'", error=IntegrityError)
    # As they are in the document: saved again, they give the same bytes.
    config = CheckpointConfig(**{field: document[field] for field in CheckpointConfig.__struct_fields__})
    return config, FileRecord(path=WEIGHTS_FILE, size=file.weights.size, sha256=file.weights.sha256)


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
