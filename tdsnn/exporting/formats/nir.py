"""NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9).

A NIR graph describes one step of a network whose neurons are differential equations. This package's neuron is
the forward Euler rule of NIR's LIF, with its potential counted from rest, u = v - v_rest, and v_leak = 0:

    u + dt / tau_nir * (v_leak - u + r * x)  =  u + (r * x - u) / tau

where tau_nir = tau * dt, and r is 1, or tau for an input that is not divided. So potentials start at 0, as
readers of NIR let them, and are reset to 0. NIR has no reset by subtraction. Its neurons fire above the
threshold and these at it too: written is the next smaller number of fp32. Edges that meet are sums. The
output is that of each step, and its mean over T steps the answer.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tdsnn.exporting.formats._base import Exported, Exporter, Metadata, readable
from tdsnn.exporting.formats._nir_graph import DT, NAMES, nir_graph
from tdsnn.exporting.formats._nir_reference import Reference
from tdsnn.exporting.program import Program

__all__ = ["FORMAT"]


class Nir(Exporter):
    """One step: convolutions, linear layers, mean over the image, LIF neurons, residual sums."""

    suffix: ClassVar[str] = ".nir"
    packages: ClassVar[tuple[str, ...]] = ("nir",)
    timed: ClassVar[bool] = False

    @property
    def runtime(self) -> str:
        from importlib.metadata import version

        return f"reference interpreter of NIR, file read by nir {version('nir')}"

    def unrolled(self, timesteps: int) -> int:
        return 1

    def encode(self, program: Program, metadata: Metadata) -> bytes:
        import nir

        graph = nir_graph(program)
        graph.metadata |= metadata.texts()
        content = io.BytesIO()
        nir.write(content, graph)
        return content.getvalue()

    def read(self, path: Path) -> Exported:
        import nir

        with readable(path, OSError, ValueError, KeyError, TypeError, AssertionError):
            return _Exported(nir.read(path), path)


FORMAT = Nir()


class _Exported(Exported):
    def __init__(self, graph: Any, path: Path) -> None:
        self.metadata = Metadata.from_texts(graph.metadata, path=path)
        self._layers: dict[str, str] = json.loads(graph.metadata[NAMES])
        self._reference = Reference(graph, dt=float(graph.metadata[DT]))

    def logits(self, images: Tensor) -> Tensor:
        return self._run(images)[0]

    def spikes(self, images: Tensor) -> dict[str, Tensor]:
        return self._run(images)[1]

    def _run(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, fired = self._reference.run(images, self.metadata.timesteps)
        return outputs.mean(0), {layer: fired[node] for node, layer in self._layers.items()}
