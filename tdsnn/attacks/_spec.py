"""What to attack with, as people type it: ``pgd:steps=100,restarts=5,norm=l2,eps=128/255``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tdsnn.attacks._base import Attack, configure
from tdsnn.attacks._norms import NORMS
from tdsnn.errors import UsageError
from tdsnn.settings import as_typed, once, stated_settings

_FRACTION_BELOW = 0.1
"""A bare number below this is taken for a slip: people write 0.031 and mean 8/255."""
_EXAMPLE = "For example --attack pgd:steps=100,restarts=5,eps=8/255."
_EPS_HINT = "For example --eps 8 or --eps 8/255."


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One attack with its settings, its norm, and the strengths of which each is a cell."""

    attack: Attack
    norm: str | None
    """Distance that a strength is a radius in; None for noise."""
    strengths: tuple[float, ...]
    """Ascending, in units of 1/255, in L0 of values; 0 is the control without strength."""
    survivors_only: bool = False
    """Whether it is spent only on what every attack before it, in the same norm and of the same or a smaller
    radius, has left standing. Its scores are then those of all of them together."""

    @property
    def name(self) -> str:
        """Registered name of the attack."""
        return self.attack.name

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the attack."""
        return self.attack.settings

    @property
    def variant(self) -> str:
        """What differs from the attack's defaults, as it is typed; empty if nothing does."""
        changed = self.attack.changed
        if self.norm != self.attack.choose_norm(None):
            changed = {"norm": self.norm, **changed}
        return as_typed(changed)

    def eps(self, strength: float) -> float:
        """A strength in units of the pixel range, in L0 of values."""
        return strength / (self.attack.units if self.norm is None else NORMS[self.norm].units)


def attack_specs(
    texts: Sequence[str], *, eps: Sequence[str | float] = (), steps: int | None = None
) -> tuple[AttackSpec, ...]:
    """Attacks in the given order; the same attack with the same settings twice is one, with all strengths.

    Args:
        texts: ``NAME`` or ``NAME:KEY=VALUE,...``; a key is a setting of the attack, ``norm``, or ``eps``,
            which may be repeated.
        eps: strengths of attacks that state none: 8 or "8/255"; by default the attack's own.
        steps: for the attacks that have such a setting and do not state it.

    Raises:
        UsageError: an unknown attack, setting, norm, a value or strength that cannot be, or ``steps`` without
            an attack that has them.
    """
    found: dict[tuple[Attack, str | None], set[float]] = {}
    stepped = False
    for text in texts:
        plain = configure(text.partition(":")[0].strip())
        found_there = stated_settings(text, example=_EXAMPLE, leading=plain.leading)
        strengths = found_there.pop("eps", [])
        stated = once(found_there, text, hint="Give --attack once for each value.")
        norm = stated.pop("norm", None)
        if "steps" in plain.settings and steps is not None:
            stated = {"steps": str(steps), **stated}
            stepped = True
        attack = configure(plain.name, **plain.read(plain.name, stated, typed=True))
        norm = attack.choose_norm(norm.casefold() if norm else None)
        # All are read, so that a mistyped strength never goes unnoticed.
        general = [parse_strength(one, norm=norm, units=attack.units) for one in eps]
        own = [parse_strength(one, norm=norm, units=attack.units) for one in strengths]
        found.setdefault((attack, norm), set()).update(own or general or attack.budgets[norm])
    if steps is not None and not stepped:
        raise UsageError(f"None of the attacks {', '.join(texts)} takes steps.", hint="Leave out --steps.")
    return tuple(
        AttackSpec(attack=attack, norm=norm, strengths=tuple(sorted(strengths)))
        for (attack, norm), strengths in found.items()
    )


def parse_strength(text: str | float, *, norm: str | None, units: float = 255.0) -> float:
    """A strength in units of 1/255, in L0 of values, from ``8``, ``8/255`` or ``0.5/255``; of noise in the
    attack's units, e.g. percent.

    Raises:
        UsageError: no number, out of range, or a number that could mean two things.
    """
    parts = str(text).split("/")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    measure = NORMS[norm or "linf"]
    units = units if norm is None else measure.units
    if not 1 <= len(numbers) <= 2 or (len(numbers) == 2 and not numbers[1] > 0):
        raise UsageError(f"'{text}' is no strength of an attack.", hint=_EPS_HINT)
    if len(numbers) == 2:
        # First the quotient of the units, so that 8/255 is exactly what 8 is.
        strength = numbers[0] * (units / numbers[1])
    else:
        (strength,) = numbers
        if units == 255.0 and 0 < strength < _FRACTION_BELOW:
            pixels = strength * units
            raise UsageError(
                f"A strength of {text} may mean {text}/255 or, as a fraction of the pixel range, "
                f"{pixels:.3g}/255.",
                hint=f"Write {text}/255 or {pixels:.3g}.",
            )
    # How long an L2 or L1 radius can be depends on the images, so that is checked when they are known.
    most = units if norm in (None, "linf") else math.inf
    if not 0 <= strength <= most or math.isinf(strength):
        reach = f"in 0..{most:g}" if math.isfinite(most) else "at 0 or above"
        unit = f"units of 1/{units:g}" if measure.continuous else "values"
        raise UsageError(f"A strength must lie {reach} ({unit}), not {strength:g}.", hint=_EPS_HINT)
    return strength
