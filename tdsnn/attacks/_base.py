"""The contract of attacks: what a plug-in implements and what this class guarantees for all of them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tdsnn.attacks._draws import SampleDraws
from tdsnn.attacks._gradient import finite, inference, predict
from tdsnn.errors import GateError, UsageError
from tdsnn.registry import Registry

ATTACKS: Registry[type[Attack]] = Registry("attack", "tdsnn.attacks", "tdsnn-zoo bench --help")

BALL_TOLERANCE = 1e-6
"""Slack of the eps check: x + eps is rounded once in float32."""


@dataclass(frozen=True)
class Outcome:
    """What an attack left of a batch of N samples."""

    x_adv: Tensor
    """(N, C, H, W) in [0, 1]; equal to the input where the clean verdict was already wrong."""
    clean_correct: Tensor
    """(N,) bool: classified correctly without attack."""
    robust: Tensor
    """(N,) bool: classified correctly without attack and on the worst input that the attack found."""

    @property
    def survivors(self) -> int:
        """How many samples are still classified correctly."""
        return int(self.robust.sum())


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """Base of every attack. A plug-in is a frozen dataclass: its fields are its settings.

    It implements :meth:`run` and states what its budget means:

    * ``norms`` names the distances in which it keeps to a ball of radius eps; the first is the default.
    * An empty ``norms`` means that there is no ball (noise): eps is then the strength described by
      ``eps_meaning``, and only the range [0, 1] is enforced.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    eps_meaning: ClassVar[str] = "Linf radius"
    default_eps_255: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0)
    """Strengths of a benchmark that names none, in units of 1/255."""

    @property
    def name(self) -> str:
        """Registered name: the file name of the plug-in."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the attack besides eps, norm and seed."""
        return asdict(self)

    @abstractmethod
    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str | None, generator: SampleDraws
    ) -> Tensor:
        """Candidate inputs (N, C, H, W), one for each sample, in [0, 1] and within ``eps`` of ``x``.

        Args:
            model: in eval mode, parameters frozen, stateless.
            x: correctly classified images (N, C, H, W), float in [0, 1], N >= 1.
            y: true classes (N,).
            eps: radius (or strength) in units of the pixel range [0, 1].
            norm: one of ``norms``; None if there are none.
            generator: the only allowed source of randomness.
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
        clean_correct: Tensor | None = None,
    ) -> Outcome:
        """Attack a batch and judge it.

        Samples that are wrong without attack never enter. A sample falls if the candidate is misclassified in
        a fresh forward pass; one that :meth:`run` returned unchanged keeps its clean verdict.

        Args:
            model: maps (N, C, H, W) in [0, 1] to logits (N, K); left in the mode it was found in.
            x: images (N, C, H, W), float in [0, 1].
            y: true classes (N,), int64.
            eps: radius (or strength) in units of the pixel range, 0 to 1.
            indices: index of each sample in its dataset; with ``seed`` it fixes all draws.
            norm: default the attack's first.
            clean_correct: (N,) bool, if the verdicts without attack are known already.

        Raises:
            UsageError: images, labels, eps or norm outside what is described here.
            GateError: a candidate left the ball or [0, 1], or the model gave NaN or infinity.
        """
        norm = self._check_norm(norm)
        _check_eps(eps)
        _check_batch(x, y, len(indices))
        with inference(model):
            correct = predict(model, x) == y if clean_correct is None else clean_correct.to(x.device)
            x_adv, robust = x.clone(), correct.clone()
            if not correct.any():
                return Outcome(x_adv, correct, robust)
            places = correct.nonzero().squeeze(1)
            draws = SampleDraws(
                seed=seed, stream=self.name, indices=np.asarray(indices, dtype=np.int64)[places.cpu().numpy()]
            )
            found = self.run(model, x[places], y[places], eps=eps, norm=norm, generator=draws).detach()
            self._check_candidates(found, x[places], eps=eps, norm=norm)
            changed = (found != x[places]).flatten(1).any(1)
            if changed.any():
                robust[places[changed]] = predict(model, found[changed]) == y[places[changed]]
            x_adv[places] = found
        return Outcome(x_adv, correct, robust)

    def _check_norm(self, norm: str | None) -> str | None:
        if norm is None:
            return self.norms[0] if self.norms else None
        if norm not in self.norms:
            allowed = ", ".join(self.norms) or "none (it has no ball)"
            raise UsageError(f"The attack {self.name} has no norm '{norm}'; allowed: {allowed}.")
        return norm

    def _check_candidates(self, found: Tensor, x: Tensor, *, eps: float, norm: str | None) -> None:
        if found.shape != x.shape:
            raise GateError(f"{self.name} returned shape {tuple(found.shape)} for {tuple(x.shape)}.")
        finite(found, f"pixels from {self.name}")
        low, high = float(found.min()), float(found.max())
        if low < 0 or high > 1:
            raise GateError(f"{self.name} left the pixel range [0, 1]: it returned [{low:.8f}, {high:.8f}].")
        # Without strength nothing may change, ball or not: this is the negative control of every attack.
        limit = 0.0 if eps == 0 else (eps + BALL_TOLERANCE if norm == "linf" else None)
        distance = float((found - x).abs().max())
        if limit is not None and distance > limit:
            raise GateError(
                f"{self.name} left its {norm or 'zero'} ball: distance {distance:.8f}, eps {eps:.8f}."
            )


def configure(name: str, **options: float | int | None) -> Attack:
    """The registered attack ``name`` with the given settings; an option that is None keeps its default.

    Raises:
        UsageError: unknown attack, or an option that it does not have.
    """
    kind = ATTACKS.load(name)
    known = {field.name for field in fields(kind)}
    chosen = {key: value for key, value in options.items() if value is not None}
    for key in chosen:
        if key not in known:
            has = ", ".join(sorted(known)) or "none"
            raise UsageError(f"The attack {name} has no option '{key}'; it has: {has}.")
    return kind(**chosen)


def source_file(attack: Attack) -> Path:
    """The file that implements the attack."""
    return Path(inspect.getfile(type(attack)))


def _check_eps(eps: float) -> None:
    if not 0 <= eps <= 1:
        raise UsageError(
            f"eps must lie in [0, 1] (0 to 255 in units of 1/255), not {eps:g} ({255 * eps:g}/255).",
            hint="For example eps = 8/255.",
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
