"""``torch.export``: the program as PyTorch's own archive (.pt2)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from tdsnn.exporting.formats._base import Exported, Exporter, Metadata, readable
from tdsnn.exporting.program import Program

__all__ = ["FORMAT"]

_ABOUT = "tdsnn.json"
"""File of the archive with the metadata and the names of the nodes that fire."""


class TorchExport(Exporter):
    """``torch.export.load(FILE).module()`` maps images to logits; no code of this package is in it."""

    suffix: ClassVar[str] = ".pt2"

    @property
    def runtime(self) -> str:
        return f"PyTorch {torch.__version__}, loaded program"

    def encode(self, program: Program, metadata: Metadata) -> bytes:
        about = json.dumps({"metadata": metadata.texts(), "spikes": program.spikes})
        content = io.BytesIO()
        torch.export.save(program.exported, content, extra_files={_ABOUT: about})
        return content.getvalue()

    def read(self, path: Path) -> Exported:
        extra = {_ABOUT: ""}
        failures = (RuntimeError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
        with readable(path, *failures), path.open("rb") as stream:
            exported = torch.export.load(stream, extra_files=extra)
            about = json.loads(extra[_ABOUT])
            return _Exported(
                exported.module(), Metadata.from_texts(about["metadata"], path=path), about["spikes"]
            )


FORMAT = TorchExport()


class _Exported(Exported):
    def __init__(self, module: fx.GraphModule, metadata: Metadata, spikes: dict[str, list[str]]) -> None:
        self.metadata = metadata
        self._module = module
        self._spikes = spikes

    def logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self._module(images)
        return found

    def spikes(self, images: Tensor) -> dict[str, Tensor]:
        watching = _Watching(self._module, {name for names in self._spikes.values() for name in names})
        with torch.no_grad():
            watching.run(images)
        return {
            layer: torch.stack([watching.seen[name] for name in names])
            for layer, names in self._spikes.items()
        }


class _Watching(fx.Interpreter):
    """Runs a graph and keeps the values of some of its nodes."""

    def __init__(self, module: fx.GraphModule, names: set[str]) -> None:
        super().__init__(module)
        self._names = names
        self.seen: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if n.name in self._names:
            self.seen[n.name] = found
        return found
