"""Load and save models of the zoo."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tdsnn import store
from tdsnn.store import Location
from tdsnn.weights import CheckpointConfig

if TYPE_CHECKING:
    import torch

    from tdsnn.models._base import Model


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model in memory and the checkpoint that it is from."""

    model: Model
    config: CheckpointConfig
    location: Location

    @property
    def weights_sha256(self) -> str:
        """Content of ``model.safetensors``, 64 hex digits, as verified."""
        return self.location.weights.sha256


def load(name: str | os.PathLike[str], *, device: str | torch.device = "cpu", compile: bool = False) -> Model:
    """Load a model with its cortical sheets, in eval mode: ``tdsnn.load("tsresnet18")``.

    Random generators, defaults and the allocator of the process stay as they are.

    Args:
        name: as for :func:`tdsnn.naming.parse`: a zoo entry, a folder, or ``hf:owner/name[@revision]``.
        device: ``cpu``, ``cuda``, ``cuda:INDEX`` or ``auto``, or a device of PyTorch.
        compile: use the compiled operators (on CPU made once, in about 30 s). Where there are none the model
            stays on another path, with equal results; ``tdsnn-zoo doctor`` says why.

    Raises:
        UsageError, MissingError, IntegrityError: as :func:`tdsnn.store.locate`; also for a device that is not
            there and for tensors that do not fit the architecture.
    """
    model = open_model(name, device=device).model
    if compile and not model.compile_operators() and model.mean.device.type != "cpu":
        from tdsnn.kernels.status import notice

        warnings.warn(notice(model.mean.device), stacklevel=2)
    return model


def open_model(name: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Opened:
    """As :func:`load`, with what the checkpoint says about the model."""
    from tdsnn.models._checkpoint import read_model
    from tdsnn.runtime import choose_device

    target = choose_device(device)
    location = store.locate(name)
    model, config = read_model(location.folder, known=location.weights)
    return Opened(model=model.to(target), config=config, location=location)


def save(model: Model, folder: Path, *, name: str, dataset: str) -> None:
    """Write a model and its sheets as a checkpoint folder that :func:`load` reads.

    Args:
        name: zoo entry that the checkpoint belongs to, or any name of your own.
        dataset: registered name of the dataset it was trained on.

    Raises:
        UsageError: the model is not what its architecture and arguments make, or has weights that are not
            finite; nothing is written.
        TdsnnError: the folder cannot be written; what was there is as it was.
    """
    from tdsnn.models._checkpoint import write_model

    write_model(model, folder, name=name, dataset=dataset)
