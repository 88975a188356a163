"""What a spatial loss is, and the registry that a manifest's ``loss`` names.

A loss is one file of this folder: a :class:`SpatialLoss` that, when called, gives :func:`weigh` of its terms,
and declares the options that it takes. ``topoloss.py`` is an example on weights, ``tdann.py`` one on outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from tdsnn.errors import TdsnnError, UsageError
from tdsnn.processes import ALONE, Team
from tdsnn.registry import Registry
from tdsnn.schema import TOPOGRAPHY_FIELDS, Table, Topography, plain
from tdsnn.topography.losses._draws import ClusterDraws
from tdsnn.topography.sheets import CorticalSheet
from tdsnn.validation import check

OptionsOf = TypeVar("OptionsOf", bound=Table)


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


class SpatialLoss(ABC):
    """Loss of one batch, built from the network and the manifest's ``[topography]``."""

    Options: ClassVar[type[Table]] = Table
    """What the table holds for this loss alone; a frozen keyword-only :class:`~tdsnn.schema.Table`."""
    timing: ClassVar[bool] = False
    """Whether it has a spike-timing term, weighted by ``beta``, over lags up to ``window``."""
    compiled: bool = False
    """Whether the compiled operators may run on CPU; False until somebody sets it."""
    team: Team = ALONE
    """The processes that share a batch; a loss that looks at outputs is one of the whole batch."""
    layers: tuple[str, ...] = ()
    """Modules whose outputs are recorded for the loss; empty for a loss on the weights."""
    draws: ClusterDraws | None = None
    """Neighbourhoods that it looks at; None of a loss that draws none."""

    @abstractmethod
    def __init__(self, model: Sheeted, topography: Topography) -> None: ...

    def ahead(self, generator: torch.Generator) -> None:
        """Begin to draw, on another thread, what a call with a generator in this state will need."""
        if self.draws is not None:
            self.draws.ahead(generator)

    @abstractmethod
    def __call__(self, outputs: Mapping[str, Tensor], *, generator: torch.Generator) -> SpatialTerms:
        """``outputs``: layer name to what its module gave; ``generator`` draws what the loss samples."""

    @classmethod
    def check(cls, topography: Topography, *, timesteps: int) -> None:
        """Refuse what the loss cannot train a network of ``timesteps`` steps with, before one is built.

        Raises:
            UsageError: a ``beta`` without a term that it is for, or a window as long as the steps.
        """
        if not cls.timing:
            alpha_alone(topography)
        elif topography.window >= timesteps:
            raise UsageError(
                f"The spatial loss '{topography.loss}' needs a whole number from 0 to {timesteps - 1} for "
                f"'topography.window' with {timesteps} time steps, not {topography.window}.",
                hint=f"Give --set topography.window={timesteps - 1}, or more with --set model.timesteps",
            )

    @classmethod
    def check_network(cls, model: Sheeted, topography: Topography) -> None:
        """Refuse a network that the loss cannot shape, before its sheets are arranged.

        Raises:
            UsageError: there is no sheet.
        """
        if not model.sheets:
            raise UsageError(f"The spatial loss '{topography.loss}' needs at least one cortical sheet.")


SPATIAL_LOSSES: Registry[type[SpatialLoss]] = Registry("spatial loss", "tdsnn.topography.losses")


def complete(
    topography: Topography,
    *,
    name: str,
    hint: str = "",
    recorded: bool = False,
    error: type[TdsnnError] = UsageError,
) -> Topography:
    """With all options of the named loss, checked; those that are not stated have their defaults.

    Args:
        name, hint, recorded, error: of the document, as of :func:`tdsnn.validation.check`. What was recorded
            may hold options of other losses.

    Raises:
        UsageError: no such loss.
        error: an option that the loss does not take, or of another type, out of range or no choice.
    """
    kind = SPATIAL_LOSSES.load(topography.loss).Options
    options = check(
        topography.options,
        kind,
        name=name,
        at="topography",
        also_known=TOPOGRAPHY_FIELDS,
        recorded=recorded,
        error=error,
        hint=hint,
    )
    return replace(topography, options=plain(options))


def read_options(topography: Topography, kind: type[OptionsOf]) -> OptionsOf:
    """The options of a topography as those of one loss.

    Raises:
        UsageError: an option that it does not take.
    """
    return check(topography.options, kind, name=f"The topography of '{topography.loss}'", at="topography")


def weigh(
    terms: Mapping[str, tuple[float, Tensor]], *, also_logged: Mapping[str, Tensor] | None = None
) -> SpatialTerms:
    """The sum of ``terms``, name to (weight, value ()); the log gets the values and ``also_logged``."""
    weighted = {name: weight * value for name, (weight, value) in terms.items()}
    values = {name: value for name, (_, value) in terms.items()} | dict(also_logged or {})
    total = torch.stack(tuple(weighted.values())).sum()
    return SpatialTerms(total, weighted, {name: value.detach() for name, value in values.items()})


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


def gradient_shares(
    terms: Mapping[str, Tensor], parameters: Iterable[Tensor], *, team: Team = ALONE
) -> dict[str, float]:
    """Norm of each term's gradient with respect to all parameters, as a share of the sum of these norms.

    Costs one backward pass per term and keeps the graph for the one that trains.

    Args:
        team: the processes that share the batch; the gradient is the mean of theirs.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, term in terms.items():
        found = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
        lengths = [team.mean(grad).norm() for grad in found if grad is not None]
        norms[name] = math.hypot(*torch.stack(lengths).tolist()) if lengths else 0.0
    total = sum(norms.values())
    return {name: norm / total if total else 0.0 for name, norm in norms.items()}
