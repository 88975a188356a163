"""What a spatial loss is, and the registry that a manifest's ``loss`` names.

A loss is one file of this folder: a class that is built from the network and the manifest's ``[topography]``
and that, when called, gives :func:`weigh` of its terms. ``topoloss.py`` is an example on weights, and
``tdann.py`` one on outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tdsnn.errors import UsageError
from tdsnn.registry import Registry
from tdsnn.topography.clusters import Clusters, sample_clusters
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.types import Topography


class Sheeted(Protocol):
    """What a spatial loss may know of a network: its sheets and the modules whose outputs lie on them."""

    @property
    def sheets(self) -> Mapping[str, CorticalSheet]:
        """Module name to sheet."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """The module of that name, as of :class:`torch.nn.Module`."""
        ...


class SpatialTerms(NamedTuple):
    """What a spatial loss found in one batch; made by :func:`weigh`."""

    total: Tensor
    """(), the sum of the terms."""
    terms: dict[str, Tensor]
    """(), the weighted terms, each with its graph."""
    parts: dict[str, Tensor]
    """(), for the log: the terms before weighting and what else is worth a look, without graph."""


class SpatialLoss(Protocol):
    """Loss of one batch."""

    compiled: bool
    """Whether the compiled operators may run on CPU; False until somebody sets it."""
    layers: tuple[str, ...]
    """Modules whose outputs are recorded for the loss; empty for a loss on the weights."""

    def __call__(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> SpatialTerms:
        """``outputs``: layer name to (T, B, C, H, W); ``generator`` draws what the loss samples."""
        ...


SPATIAL_LOSSES: Registry[Callable[[Sheeted, Topography], SpatialLoss]] = Registry(
    "spatial loss", "tdsnn.topography.losses", "ls tdsnn/topography/losses"
)


def weigh(
    terms: Mapping[str, tuple[float, Tensor]], *, also_logged: Mapping[str, Tensor] | None = None
) -> SpatialTerms:
    """The sum of ``terms``, name to (weight, value ()); the log gets the values and ``also_logged``."""
    weighted = {name: weight * value for name, (weight, value) in terms.items()}
    values = {name: value for name, (_, value) in terms.items()} | dict(also_logged or {})
    total = torch.stack(tuple(weighted.values())).sum()
    return SpatialTerms(total, weighted, {name: value.detach() for name, value in values.items()})


def draw_clusters(sheet: CorticalSheet, topography: Topography, *, generator: torch.Generator) -> Clusters:
    """As many neighbourhoods of as many units as the manifest asks for."""
    return sample_clusters(
        sheet, count=topography.clusters, units=topography.cluster_units, generator=generator
    )


def alpha_alone(topography: Topography) -> float:
    """The weight of a loss that has one term.

    Raises:
        UsageError: ``beta`` asks for a term that the loss has not.
    """
    if topography.beta:
        raise UsageError(
            f"The spatial loss '{topography.loss}' has no spike-timing term, so beta must be 0, "
            f"not {topography.beta:g}.",
            hint="Give --set topography.beta=0, or choose topography.loss=stc",
        )
    return topography.alpha


def gradient_shares(terms: Mapping[str, Tensor], parameters: Iterable[Tensor]) -> dict[str, float]:
    """Norm of each term's gradient with respect to all parameters, as a share of the sum of these norms.

    Costs one backward pass per term and keeps the graph for the one that trains. With several processes each
    sees the gradients of its own images.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, term in terms.items():
        found = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
        norms[name] = math.hypot(*(float(grad.norm()) for grad in found if grad is not None))
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}
