"""What a test for masked gradients gets, and what it says.

Rules and thresholds are those of Athalye et al. (2018, arXiv:1802.00420), Carlini et al. (2019,
arXiv:1902.06705), AutoAttack's checks (Croce and Hein 2020, arXiv:2003.01690) and Pintor et al. (2022,
arXiv:2106.09947), with what spiking networks need besides; each test names its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._base import Outcome
from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.suites import Masking
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.tasks._base import Task

GREY_EPS_255 = 128.0
"""Radius from which on every image can become flat grey."""
MAX_OVER_CHANCE = 0.02
"""Share of images above chance that may survive there."""
Status = Literal["pass", "warn", "fail", "not made"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one test found.

    ``fail`` means that the accuracy under attack of this model must not be taken for robustness, ``warn``
    that one attack alone must not; ``not made`` says why there is nothing to tell.
    """

    test: str
    """``M1`` to ``M18``."""
    title: str
    status: Status
    figure: float | None
    """What was measured, None if nothing was."""
    limit: float | None
    """The largest figure that passes; the least where the message says so."""
    unit: str
    message: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A model and images that tests may attack.

    Args:
        model: in eval mode, parameters frozen.
        x: images (N, C, H, W) in [0, 1], all right without attack.
        y: targets (N,).
        indices: of the images in the dataset (N,).
        standing: (N,) bool, those that every attack of the suite left standing at ``eps``.
        eps: Linf radius in units of the pixel range.
    """

    model: Model | Adapted
    x: Tensor
    y: Tensor
    indices: NDArray[np.int64]
    standing: NDArray[np.bool_]
    eps: float
    seed: int
    task: Task
    budget: Masking
    others: Mapping[str, Model | Adapted] = field(default_factory=dict)
    """Networks for the same images, by name."""
    # Not taken along by dataclasses.replace: another model survives other attacks.
    _survivors: dict[tuple[str, float | None], NDArray[np.bool_]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def radius(self) -> str:
        """The radius in words."""
        return f"{255 * self.eps:g}/255"

    def attack(self, text: str, *, eps: float | None = None) -> Outcome:
        """What an attack, as it is typed, leaves of the images."""
        (spec,) = attack_specs([text], eps=[1])
        return spec.attack.perturb(
            self.model,
            self.x,
            self.y,
            eps=self.eps if eps is None else eps,
            indices=self.indices,
            seed=self.seed,
            norm=spec.norm,
            task=self.task,
        )

    def survivors(self, text: str, *, eps: float | None = None) -> NDArray[np.bool_]:
        """(N,) bool: which images an attack left standing; several tests ask for the same one."""
        asked = (text, eps)
        if asked not in self._survivors:
            outcome = self.attack(text, eps=eps)
            self._survivors[asked] = (outcome.robust > self.task.floor).cpu().numpy()
        return self._survivors[asked]

    def outputs(self, x: Tensor) -> Tensor:
        """Outputs (N, K) without autograd."""
        with torch.no_grad():
            found: Tensor = self.model(x)
        return found

    def loss(self, x: Tensor) -> Tensor:
        """Losses (N,) without autograd."""
        with torch.no_grad():
            return self.task.loss(self.outputs(x), self.y[: len(x)])

    def draws(self, stream: str) -> SampleDraws:
        """Random numbers of a test, one stream for each image."""
        return SampleDraws(seed=self.seed, stream=f"masking {stream}", indices=self.indices)


def judged(
    test: str,
    title: str,
    *,
    figure: float,
    limit: float,
    unit: str,
    message: str,
    bad: Literal["warn", "fail"] = "fail",
) -> Finding:
    """A finding that passes if the figure is a number of at most ``limit``."""
    status: Status = "pass" if figure <= limit else bad
    return Finding(
        test=test, title=title, status=status, figure=figure, limit=limit, unit=unit, message=message
    )


def not_made(test: str, title: str, reason: str) -> Finding:
    """A test that could not be made."""
    return Finding(
        test=test, title=title, status="not made", figure=None, limit=None, unit="", message=reason
    )


def flat_grey(place: str, share: float, chance: float) -> Finding:
    """M8 at its last radius: where any image can become flat grey, nothing but chance is left."""
    limit = chance + MAX_OVER_CHANCE
    return judged(
        "M8",
        "flat grey",
        figure=share,
        limit=limit,
        unit="share of images",
        message=f"{percent(share)} of the images survive {place}, where any image can become flat grey; at "
        f"most {percent(limit)} should.",
    )


def percent(share: float | np.floating[Any]) -> str:
    """A share in words."""
    return f"{100 * share:.1f} %"
