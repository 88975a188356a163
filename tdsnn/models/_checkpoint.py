"""Between a checkpoint folder and a model in memory."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.models._arguments import build, without_memory
from tdsnn.models._rebuilding import require_rebuilt
from tdsnn.schema import FileRecord, SheetRecord
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.weights import CONFIG_FILE, CheckpointConfig, check_state, read_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from tdsnn.models._base import Model


def read_model(folder: Path, *, known: FileRecord | None = None) -> tuple[Model, CheckpointConfig]:
    """The model of a verified checkpoint folder, with its sheets, in eval mode on the CPU.

    Args:
        known: what ``model.safetensors`` was found to be a moment ago, so that it is not hashed again.

    Raises:
        UsageError: an architecture that is not known here.
        IntegrityError: files are damaged, or tensors or sheets do not fit the architecture.
    """
    checkpoint = read_checkpoint(folder, known=known)
    config = checkpoint.config
    # First without memory: a strange config.json could ask for more than there is.
    with _undisturbed(), without_memory():
        check_state(checkpoint.state, _build(config, folder).state_dict(), source=folder)
    with _undisturbed():
        model = _build(config, folder)
    if config.timesteps != model.timesteps:
        raise IntegrityError(
            f"'{folder / CONFIG_FILE}' has {config.timesteps} time steps, its arguments {model.timesteps}."
        )
    model.load_state_dict(checkpoint.state)
    _attach_sheets(model, config.sheets, checkpoint.positions, folder)
    model.dataset = config.dataset
    return model.eval(), config


def write_model(model: Model, folder: Path, *, name: str, dataset: str) -> None:
    """Write a model and its sheets as a checkpoint folder; see :func:`tdsnn.zoo.save`."""
    config = CheckpointConfig(
        name=name,
        architecture=model.architecture,
        arguments=dict(model.arguments),
        dataset=dataset,
        timesteps=model.timesteps,
        sheets={layer: sheet.metadata() for layer, sheet in model.sheets.items()},
    )
    require_savable(model)
    positions = {layer: sheet.positions for layer, sheet in model.sheets.items()}
    save_checkpoint(folder, state=model.state_dict(), positions=positions, config=config)


def require_savable(model: Model) -> None:
    """Refuse a model that would be another one after saving and loading.

    Raises:
        UsageError: names what its architecture and arguments do not make, or a sheet that does not fit.
    """
    subject = f"This {model.architecture}"
    hint = "Its constructor must hand all that it was given to Model, as arguments."
    try:
        # As config.json will have them.
        arguments = json.loads(json.dumps(model.arguments, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{subject} cannot be saved: its arguments are no JSON ({error}).",
            hint="Plain numbers, texts, lists and tables can be saved.",
        ) from error
    with _undisturbed():
        rebuilt = build(model.architecture, arguments, name=subject, hint=hint).float()
    require_rebuilt(model, rebuilt)
    for layer, sheet in model.sheets.items():
        if layer not in model.sheet_layers:
            raise UsageError(
                f"{subject} cannot be saved: '{layer}', which has a sheet, is none of its layers for one.",
                hint=f"Those layers: {', '.join(model.sheet_layers) or 'none'}",
            )
        if sheet.positions.dtype != torch.float32:
            raise UsageError(
                f"{subject} cannot be saved: the positions of layer '{layer}' are {sheet.positions.dtype}.",
                hint="Positions are float32, in mm.",
            )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Build on the CPU in float32, whatever the defaults are, and leave random generators as they were."""
    python, numpy, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        torch.set_default_dtype(dtype)
        np.random.set_state(numpy)
        random.setstate(python)


def _build(config: CheckpointConfig, folder: Path) -> Model:
    subject = f"'{folder / CONFIG_FILE}'"
    hint = "A newer tdsnn-zoo may know it: pip install --upgrade tdsnn-zoo"
    try:
        model = build(config.architecture, config.arguments, name=subject, error=IntegrityError, hint=hint)
    except UsageError as error:
        raise IntegrityError(f"{subject}: {error.message}", hint=hint) from error
    return model.float()


def _attach_sheets(
    model: Model, records: Mapping[str, SheetRecord], positions: Mapping[str, Tensor], folder: Path
) -> None:
    for layer in positions:
        sheet = CorticalSheet.from_metadata(layer, records[layer], positions[layer])
        if layer not in model.sheet_layers:
            raise IntegrityError(
                f"'{folder}' has a sheet for '{layer}', which {model.architecture} does not have."
            )
        model.sheets[layer] = sheet
