"""What all attacks that follow gradients share: surrogates, starts, and who is attacked again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks._base import DEFAULT_STRENGTHS, Attack
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import Loss, respond
from tdsnn.attacks._objective import Objective, through
from tdsnn.attacks._source import ITSELF, check_source, source_digest, source_network
from tdsnn.errors import GateError, UsageError
from tdsnn.kernels.surrogates import Surrogate, read_surrogates, spelled
from tdsnn.tasks._base import Task

Steps = Annotated[int, Meta(ge=1, le=100_000)]
Restarts = Annotated[int, Meta(ge=1, le=10_000)]


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack):
    """Base of attacks that follow the gradient of a loss, one search after the other.

    Searches are :meth:`starts` for each surrogate; those after the first are for samples that still stand, so
    more of them never fool fewer.
    """

    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = DEFAULT_STRENGTHS

    surrogate: str = "as-trained"
    """What gradients of spikes are taken through, as of :func:`tdsnn.kernels.surrogates.read_surrogates`."""
    eot: Annotated[int, Meta(ge=1, le=1_000)] = 1
    """Gradients whose mean is one step, expectation over transformation (Athalye et al., 2018,
    arXiv:1707.07397): for networks that draw random numbers."""

    source: str = ITSELF
    """Network whose gradients are followed, a zoo entry or a folder; the attacked one judges each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "surrogate", spelled(self.surrogates))
        check_source(self.source)

    @property
    def inputs(self) -> Mapping[str, str]:
        """The source's weights."""
        digest = source_digest(self.source)
        return {} if digest is None else {self.source: digest}

    @property
    def surrogates(self) -> tuple[Surrogate | None, ...]:
        """In the order in which they are searched through; None is as trained."""
        return read_surrogates(self.surrogate)

    def starts(self) -> int:
        """Searches through each surrogate."""
        return 1

    @abstractmethod
    def start(self, x: Tensor, *, eps: float, norm: str, generator: SampleDraws) -> Tensor:
        """Where a search begins, for images ``x``; both (N, C, H, W)."""

    @abstractmethod
    def search(self, objective: Objective, start: Tensor, *, eps: float, norm: str) -> Tensor:
        """Where one search ends, (N, C, H, W): where a sample fell, else the best that it found."""

    def objective(
        self, model: nn.Module, x: Tensor, y: Tensor, *, task: Task, surrogate: Surrogate | None, turn: int
    ) -> Objective | None:
        """What search number ``turn`` of a surrogate raises, from 0 on; None: nothing that was not yet."""
        return self.raising(model, x, y, task=task, surrogate=surrogate)

    def raising(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        task: Task,
        surrogate: Surrogate | None,
        loss: Loss | None = None,
        targets: Tensor | None = None,
    ) -> Objective:
        """A loss, by default the task's, with its gradient as the settings say."""
        return Objective(
            model,
            x,
            y,
            task=task,
            source=source_network(self.source, model, x),
            surrogate=surrogate,
            loss=loss,
            targets=targets,
            draws=self.eot,
        )

    def objection(self, model: nn.Module, task: Task) -> str | None:
        try:
            # Which images they share is known only when there are some.
            for surrogate in self.surrogates if self.source == ITSELF else ():
                through(model, surrogate)
        except (GateError, UsageError) as refused:
            return refused.message
        return super().objection(model, task)

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: float,
        norm: str | None,
        task: Task,
        generator: SampleDraws,
    ) -> Tensor:
        """Search from each start through each surrogate; see :meth:`Attack.run`."""
        assert norm is not None
        found, standing = x.clone(), torch.arange(len(x), device=x.device)
        for number, (surrogate, turn) in enumerate(product(self.surrogates, range(self.starts()))):
            if number:
                scores = task.score(respond(model, found[standing]), y[standing])
                standing = standing[scores > task.floor]
                if not len(standing):
                    break
            # Drawn for all, so that a sample's later starts do not depend on which others still stand.
            start = self.start(x, eps=eps, norm=norm, generator=generator)[standing]
            objective = self.objective(
                model, x[standing], y[standing], task=task, surrogate=surrogate, turn=turn
            )
            if objective is not None:
                found[standing] = self.search(objective, start, eps=eps, norm=norm)
                objective.finiteness.confirm()
        return found
