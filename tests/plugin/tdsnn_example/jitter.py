"""Random steps of full size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from tdsnn.attacks import Attack, SampleDraws, respond
from tdsnn.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Jitter(Attack):
    """The worst of several random corners of the Linf ball, by the loss."""

    tries: Annotated[int, Meta(ge=1, le=1_000)] = 4

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
        worst, highest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(self.tries):
            candidate = torch.clamp(x + eps * generator.normal(x).sign(), 0, 1)
            loss = task.loss(respond(model, candidate), y).detach()
            higher = loss > highest
            worst[higher], highest[higher] = candidate[higher], loss[higher]
        return worst
