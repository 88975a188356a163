"""The contract of attacks: what a plug-in implements and what this class guarantees for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import finite, inference, over_time, respond
from tdsnn.attacks._norms import NORMS
from tdsnn.errors import GateError, UsageError
from tdsnn.registry import Registry
from tdsnn.settings import Configured
from tdsnn.tasks._base import Task
from tdsnn.tasks.classification import CLASSIFICATION

ATTACKS: Registry[type[Attack]] = Registry("attack", "tdsnn.attacks", "tdsnn-zoo bench --help")

DEFAULT_STRENGTHS: Mapping[str | None, tuple[float, ...]] = {
    "linf": (0.5, 1.0, 2.0, 4.0, 8.0),
    "l2": (16.0, 32.0, 64.0, 128.0, 255.0),
}
"""Strengths of gradient attacks in units of 1/255; 128 is the L2 radius of RobustBench on CIFAR-10, 0.5."""


@dataclass(frozen=True)
class Outcome:
    """What an attack left of a batch of N samples."""

    x_adv: Tensor
    """(N, C, H, W) in [0, 1]; equal to the input where the clean score was the lowest already. Of images that
    differ between time steps those of the first."""
    clean: Tensor
    """(N,) scores without attack; of a classifier bool, right or not."""
    robust: Tensor
    """(N,) the lower of the scores without attack and on the worst input that the attack found."""


@dataclass(frozen=True, kw_only=True)
class Attack(Configured, ABC):
    """Base of every attack. A plug-in is a frozen dataclass: its fields are its settings.

    It implements :meth:`run` and states its budgets: the norms of :data:`NORMS` in which it keeps to a ball
    of radius eps, the default first, each with the strengths of a benchmark that names none. The one key None
    means that there is no ball (noise): eps is then what the attack's docstring says, and only the range
    [0, 1] is enforced. Strengths are in units of 1/255, in L0 of values. A setting has a default, and a type
    that says which values it may have: ``Annotated[int, Meta(ge=1, le=100)]``, ``Literal["ce", "dlr"]``.
    """

    noun: ClassVar[str] = "attack"
    common: ClassVar[tuple[str, ...]] = ("eps", "norm")
    budgets: ClassVar[Mapping[str | None, tuple[float, ...]]] = {"linf": DEFAULT_STRENGTHS["linf"]}

    units: ClassVar[float] = 255.0
    """Of noise: into how many parts a strength of 1 is divided where people state it."""
    strength_word: ClassVar[str] = "sigma"
    """Of noise: what its strength is, in tables; ``sigma`` is in units of 1/255."""
    leading: ClassVar[str | None] = None
    """Setting that may be typed first and without its name, as in ``torchattacks:PGD``."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """What else it reads, by name with its sha256: numbers depend on it too."""
        return {}

    @classmethod
    def norms(cls) -> tuple[str, ...]:
        """Distances in which eps is a radius, the default first; none of noise."""
        return tuple(norm for norm in cls.budgets if norm is not None)

    def objection(self, model: nn.Module, task: Task) -> str | None:
        """Why this attack cannot be run on a model, one sentence; None if it can."""
        return None

    def applies_to(self, model: nn.Module, task: Task = CLASSIFICATION) -> bool:
        """Whether this attack can be run on a model."""
        return self.objection(model, task) is None

    @abstractmethod
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
        """Candidate inputs (N, C, H, W), one for each sample, in [0, 1] and within ``eps`` of ``x``.

        Args:
            model: in eval mode, parameters frozen, stateless.
            x: images with more than the lowest score, (N, C, H, W), float in [0, 1], N >= 1.
            y: targets (N,).
            eps: radius (or strength) in units of the pixel range [0, 1]; in L0 a number of values.
            norm: one of :meth:`norms`; None if there are none.
            task: its loss is to be raised, its score to be lowered.
            generator: the only allowed source of randomness.

        Returns:
            (N, C, H, W), or (T, N, C, H, W) for images of their own at each of the model's T time steps.
        """

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: float,
        indices: Sequence[int] | NDArray[np.int64],
        seed: int = 0,
        norm: str | None = None,
        task: Task = CLASSIFICATION,
        clean: Tensor | None = None,
    ) -> Outcome:
        """Attack a batch and judge it.

        Samples that have the lowest score without attack never enter; of a classifier, those that it gets
        wrong. The others keep the lower of two scores: without attack, and of the candidate in a fresh
        forward pass. One that :meth:`run` returned unchanged keeps its clean score.

        Args:
            model: maps (N, C, H, W) in [0, 1] to outputs (N, K); left in the mode it was found in.
            x: images (N, C, H, W), float in [0, 1].
            y: targets (N,), of a classifier int64.
            eps: radius (or strength) in units of the pixel range, in L0 a number of values; from 0 to the
                distance between a black and a white image.
            indices: index of each sample in its dataset; with ``seed`` it fixes all draws.
            norm: default the attack's first.
            clean: (N,) scores without attack, if they are known already.

        Raises:
            UsageError: images, labels, eps or norm outside what is described here.
            GateError: the attack cannot be run on this model, a candidate left the ball or [0, 1], or the
                model gave NaN or infinity.
        """
        norm = self.choose_norm(norm)
        if objection := self.objection(model, task):
            raise GateError(objection)
        _check_batch(x, y, len(indices))
        check_eps(eps, norm=norm, values=x[0].numel())
        with inference(model):
            before = task.score(respond(model, x), y) if clean is None else clean.to(x.device)
            x_adv, robust = x.clone(), before.clone()
            places = (before > task.floor).nonzero().squeeze(1)
            if not len(places):
                return Outcome(x_adv, before, robust)
            draws = SampleDraws(
                seed=seed, stream=self.name, indices=np.asarray(indices, dtype=np.int64)[places.cpu().numpy()]
            )
            found = self.run(
                model, x[places], y[places], eps=eps, norm=norm, task=task, generator=draws
            ).detach()
            self._check_candidates(found, x[places], eps=eps, norm=norm)
            frames = found if found.ndim == x.ndim + 1 else found[None]
            changed = (frames != x[places]).transpose(0, 1).flatten(1).any(1)
            if changed.any():
                shown = frames[:, changed]
                outputs = respond(model, shown[0]) if len(shown) == 1 else over_time(model, shown)
                after = task.score(outputs, y[places[changed]])
                robust[places[changed]] = torch.minimum(before[places[changed]], after)
            x_adv[places] = frames[0]
        return Outcome(x_adv, before, robust)

    def choose_norm(self, norm: str | None) -> str | None:
        """``norm``, or for None the attack's default.

        Raises:
            UsageError: the attack does not keep to balls of that norm.
        """
        if norm is None:
            return next(iter(self.budgets))
        if norm not in self.norms():
            allowed = ", ".join(self.norms()) or "none (it has no ball)"
            raise UsageError(
                f"The attack {self.name} has no norm '{norm}'; allowed: {allowed}.",
                hint="See the attacks: tdsnn-zoo bench --help",
            )
        return norm

    def _check_candidates(self, found: Tensor, x: Tensor, *, eps: float, norm: str | None) -> None:
        if found.shape != x.shape and (norm is not None or found.shape[1:] != x.shape):
            raise GateError(f"{self.name} returned shape {tuple(found.shape)} for {tuple(x.shape)}.")
        finite(found, f"pixels from {self.name}")
        low, high = float(found.min()), float(found.max())
        if low < 0 or high > 1:
            raise GateError(f"{self.name} left the pixel range [0, 1]: it returned [{low:.8f}, {high:.8f}].")
        # Without strength nothing may change, ball or not: this is the negative control of every attack.
        if norm is None and eps > 0:
            return
        measure = NORMS[norm or "linf"]
        distance = max(measure.distance(one, x) for one in (found if found.ndim > x.ndim else found[None]))
        limit = eps + measure.tolerance(eps, x[0].numel()) if eps else 0.0
        if distance > limit:
            raise GateError(
                f"{self.name} left its {norm or 'zero'} ball: distance {distance:.8f}, eps {eps:.8f}."
            )


def configure(name: str, **settings: bool | int | float | str) -> Attack:
    """The registered attack ``name``, in any case, with the given settings.

    Raises:
        UsageError: unknown attack, a setting that it does not have, or a value that it may not have.
    """
    registered = next((one for one in ATTACKS.names() if one.casefold() == name.casefold()), name)
    kind = ATTACKS.load(registered)
    return kind(name=registered, **kind.read(registered, settings))


def check_eps(eps: float, *, norm: str | None, values: int) -> None:
    """Refuse a strength that no image of that many values can need.

    Raises:
        UsageError: eps below 0, not a number, or more than there is between a black and a white image.
    """
    measure = NORMS[norm or "linf"]
    most = measure.of_ones(values)
    if not 0 <= eps <= most:
        raise UsageError(
            f"eps must lie in [0, {most:g}] for {norm or 'noise'} on images of {values} values, not {eps:g}; "
            f"typed, that is 0..{measure.units * most:g}, not {measure.units * eps:g}.",
            hint="For example --eps 8, which is 8/255.",
        )


def _check_batch(x: Tensor, y: Tensor, count: int) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise UsageError(f"Images must be float (N, C, H, W) in [0, 1]; got {x.dtype} of {tuple(x.shape)}.")
    if y.shape != x.shape[:1] or y.dtype != torch.int64 or count != len(x):
        raise UsageError(
            f"{len(x)} images need as many int64 labels and indices; got {y.dtype} of {tuple(y.shape)} "
            f"and {count} indices."
        )
    if not x.numel():
        raise UsageError("An attack needs at least one image.")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise UsageError(f"Pixels must lie in [0, 1], not [{low:g}, {high:g}].", hint="Divide uint8 by 255.")
