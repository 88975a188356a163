"""Accuracy of the answer after each time step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.attacks._base import configure
from tdsnn.attacks._spec import AttackSpec, parse_strength
from tdsnn.errors import UsageError
from tdsnn.metrics._base import Curve
from tdsnn.models._adapted import Adapted
from tdsnn.models._base import Model
from tdsnn.temporal._base import Key, Measurement, Subject, TimeMetric
from tdsnn.temporal._figures import over_time, proportion
from tdsnn.temporal._spikes import logits_over_time
from tdsnn.temporal._steps import MOST_STEPS

__all__ = ["Anytime"]

_EVERY = 5
"""Beyond the model's own T, figures are of every so many steps; curves have all."""


@dataclass(frozen=True, kw_only=True)
class Anytime(TimeMetric):
    """Accuracy of the answer after t = 1, 2, ... time steps, from one pass.

    The answer after t steps is the largest of the mean of the first t logits. As a step depends on those
    before it only, it is also the answer of the network run for T = t steps.

    With an attack, the same on adversarial examples. They are made once against the answer at the model's own
    T, so that what other t say about them is how far they transfer over time.

    Figures: ``accuracy`` and ``accuracy under ATTACK``, percent of the images, 95 % Wilson interval, for
    every t up to the model's T, then for every fifth, and for the last. Curves: for every t. Samples:
    0 or 100 for each image.
    """

    needs_spikes: ClassVar[bool] = True

    steps: Annotated[int, Meta(ge=1, le=MOST_STEPS)] | None = None
    """The last t; by default the model's own T."""
    attack: str = ""
    """Registered name of an attack, which is made with its default settings; none by default."""
    eps: float | str = "8/255"
    """Strength of the attack, in its default norm; a bare number is in units of 1/255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._spec()

    def _spec(self) -> AttackSpec | None:
        """The attack and its strength.

        Raises:
            UsageError: an unknown attack, or a strength that cannot be.
        """
        if not self.attack:
            if self.eps != type(self).eps:
                raise UsageError(
                    f"The strength {self.eps} is that of an attack, and {self.name} has none.",
                    hint=f"For example --metric {self.name}:attack=pgd,eps={self.eps}",
                )
            return None
        attack = configure(self.attack)
        norm = attack.choose_norm(None)
        strength = parse_strength(self.eps, norm=norm, units=attack.units)
        return AttackSpec(attack=attack, norm=norm, strengths=(strength,))

    @property
    def modules(self) -> frozenset[str]:
        spec = self._spec()
        return super().modules | ({type(spec.attack).__module__} if spec else set())

    def objection(self, model: Model | Adapted) -> str | None:
        if isinstance(model, Adapted) and model.time == "inside":
            return f"{model.name} has its time axis inside, so it has no answer after each step."
        return super().objection(model)

    def compute(self, subject: Subject) -> Measurement:
        steps = self.steps or subject.model.timesteps
        spec = self._spec()
        right: dict[str, list[NDArray[np.bool_]]] = {}
        first = 0
        for x, y in subject.batches():
            for quantity, shown in self._shown(subject, spec, x, y, first=first):
                right.setdefault(quantity, []).append(_right(subject.model, shown, y, steps))
            first += len(x)
        own = subject.model.timesteps
        listed = [t for t in range(1, steps + 1) if t <= own or t % _EVERY == 0 or t == steps]
        verdicts = {quantity: np.concatenate(parts, 1) for quantity, parts in right.items()}
        return Measurement(
            figures={
                str(Key(quantity, t)): proportion(right_TN[t - 1])
                for quantity, right_TN in verdicts.items()
                for t in listed
            },
            samples={
                str(Key(quantity, t)): 100.0 * right_TN[t - 1]
                for quantity, right_TN in verdicts.items()
                for t in listed
            },
            curves={quantity: _curve(right_TN) for quantity, right_TN in verdicts.items() if steps > 1},
            conditions={} if spec is None else _described(spec),
        )

    def _shown(
        self, subject: Subject, spec: AttackSpec | None, x: Tensor, y: Tensor, *, first: int
    ) -> Iterator[tuple[str, Tensor]]:
        """Images of a batch, which begins at index ``first``, with and without attack."""
        yield "accuracy", x
        if spec is not None:
            (strength,) = spec.strengths
            found = spec.attack.perturb(
                subject.model,
                x,
                y,
                eps=spec.eps(strength),
                indices=range(first, first + len(x)),
                seed=subject.seed,
                norm=spec.norm,
            )
            yield f"accuracy under {spec.name}", found.x_adv


def _right(model: Model | Adapted, x: Tensor, y: Tensor, steps: int) -> NDArray[np.bool_]:
    """(T, N): whether the answer after each step is right."""
    logits = logits_over_time(model, x, steps)
    counts = torch.arange(1, steps + 1, device=x.device)[:, None, None]
    found: NDArray[np.bool_] = ((logits.cumsum(0) / counts).argmax(2) == y).cpu().numpy()
    return found


def _curve(right_TN: NDArray[np.bool_]) -> Curve:
    return over_time([proportion(right) for right in right_TN], y_label="accuracy (%)")


def _described(spec: AttackSpec) -> dict[str, str | float]:
    settings = ", ".join(f"{key} {value}" for key, value in spec.settings.items())
    return {"attack": f"{spec.name} ({settings})", "eps_255": spec.strengths[0], "norm": spec.norm or "none"}
