"""Sheets of a run whose units change places by what a network answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tdsnn import zoo
from tdsnn.models._base import Model
from tdsnn.schema import Manifest
from tdsnn.topography.preparation import prepare_sheets
from tdsnn.topography.sheets import CorticalSheet

Sheets = dict[str, CorticalSheet]


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """The search for positions of one run; see :func:`tdsnn.topography.preparation.prepare_sheets`."""

    manifest: Manifest
    shape: tuple[int, ...]
    """(C, H, W) of the images."""
    folder: Path
    """Of the run; the state of the search is kept in it."""

    def by_twin(
        self, sheets: Sheets, auxiliary: str | Path | None, device: torch.device
    ) -> tuple[Sheets, str]:
        """Retinotopic sheets arranged by a checkpoint, by default the twin's; and its weights' digest."""
        twin = zoo.open_model(auxiliary or self.manifest.twin)
        source = {"model": twin.config.name, "weights_sha256": twin.weights_sha256}
        return self._arranged(sheets, twin.model.to(device), source), twin.weights_sha256

    def by_itself(self, model: Model) -> Sheets:
        """The sheets of a network arranged by its own answers."""
        return self._arranged(model.sheets, model, {"model": self.manifest.name})

    def _arranged(self, sheets: Sheets, auxiliary: Model, source: Mapping[str, str]) -> Sheets:
        if self.manifest.recipe.compile:
            auxiliary.compile_operators()
        channels, height, width = self.shape
        return prepare_sheets(
            sheets,
            auxiliary,
            self.manifest.topography,
            shape=(channels, height, width),
            source=source,
            folder=self.folder / "positions",
        )
