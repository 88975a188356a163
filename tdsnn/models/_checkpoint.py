"""Between a checkpoint folder and a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.models._arguments import build
from tdsnn.models._base import Model
from tdsnn.schema import SheetRecord
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.weights import CONFIG_FILE, CheckpointConfig, check_state, read_checkpoint, save_checkpoint


def read_model(folder: Path) -> tuple[Model, CheckpointConfig]:
    """The model of a verified checkpoint folder, with its sheets, in eval mode on the CPU.

    Raises:
        UsageError: an architecture that is not known here.
        IntegrityError: files are damaged, or tensors or sheets do not fit the architecture.
    """
    checkpoint = read_checkpoint(folder)
    config = checkpoint.config
    # First without memory: a strange config.json could ask for more than there is.
    with torch.device("meta"):
        check_state(checkpoint.state, _build(config, folder).state_dict(), source=folder)
    with torch.device("cpu"):  # whatever the default device is
        model = _build(config, folder)
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
    positions = {layer: sheet.positions for layer, sheet in model.sheets.items()}
    save_checkpoint(folder, state=model.state_dict(), positions=positions, config=config)


def _build(config: CheckpointConfig, folder: Path) -> Model:
    subject = f"'{folder / CONFIG_FILE}'"
    hint = "A newer tdsnn-zoo may know it: pip install --upgrade tdsnn-zoo"
    try:
        model = build(config.architecture, config.arguments, name=subject, error=IntegrityError, hint=hint)
    except UsageError as error:
        raise IntegrityError(f"{subject}: {error.message}", hint=hint) from error
    return model.float()  # whatever the default type is


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
