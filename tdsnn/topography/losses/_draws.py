"""The neighbourhoods that a spatial loss looks at, drawn anew for each batch."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from tdsnn.runtime import send
from tdsnn.schema import Topography
from tdsnn.topography.clusters import Clusters, sample_units
from tdsnn.topography.sheets import CorticalSheet


class ClusterDraws:
    """As many neighbourhoods of as many units of each sheet as the manifest asks for, batch after batch.

    Units are drawn on the CPU, so that they are the same wherever the network runs. To a GPU they go in one
    copy that nobody waits for, and how near they are to each other is computed there.

    Args:
        sheets: layer to sheet.
        topography: number and size of the neighbourhoods.
    """

    def __init__(self, sheets: Mapping[str, CorticalSheet], topography: Topography) -> None:
        self._sheets, self._topography = sheets, topography
        self._positions: dict[torch.device, dict[str, Tensor]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[Tensor, torch.Generator, Future[list[Tensor]]] | None = None

    def ahead(self, generator: torch.Generator) -> None:
        """Begin to draw, on another thread, what :meth:`draw` will be asked for with an equal generator."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "tdsnn-clusters")
        own = generator.clone_state()
        self._ahead = generator.get_state(), own, self._thread.submit(self._units, own)

    def draw(self, generator: torch.Generator, *, device: torch.device) -> dict[str, Clusters]:
        """Layer to its neighbourhoods, with all tensors on the device.

        Args:
            generator: of the CPU; afterwards as if the draws were made now.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and torch.equal(ahead[0], generator.get_state()):
            _, after, drawn = ahead
            units = drawn.result()
            generator.set_state(after.get_state())
        else:
            units = self._units(generator)
        together = send(torch.cat([part.flatten() for part in units]), device)
        parts = torch.split(together, [part.numel() for part in units])
        positions = self._positions_on(device)
        found = {}
        for (layer, sheet), part, like in zip(self._sheets.items(), parts, units, strict=True):
            units_MN = part.view_as(like)
            near = sheet.proximity(positions[layer][units_MN])
            found[layer] = Clusters(sheet=sheet, units=units_MN, proximity=near)
        return found

    def _units(self, generator: torch.Generator) -> list[Tensor]:
        count, size = self._topography.clusters, self._topography.cluster_units
        return [
            sample_units(sheet, count=count, units=size, generator=generator)
            for sheet in self._sheets.values()
        ]

    def _positions_on(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._positions:
            self._positions[device] = {
                layer: send(sheet.positions, device) for layer, sheet in self._sheets.items()
            }
        return self._positions[device]
