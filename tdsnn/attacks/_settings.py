"""How an attack declares its settings, and how values for them are read and checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tdsnn.errors import UsageError

T = TypeVar("T", bool, int, float, str)
_KEY = "setting"
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a setting may be."""

    kind: type
    """bool, int, float or str, as its default."""
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    """Exclusive lower end."""
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.kind is bool:
            return "true or false"
        if self.choices:
            return " or ".join(self.choices)
        what = {int: "a whole number", float: "a number", str: "text"}[self.kind]
        ends = [f"above {self.above:g}"] if self.above > -math.inf else []
        ends += [f"from {self.low:g}"] if self.low > -math.inf else []
        ends += [f"to {self.high:g}"] if self.high < math.inf else []
        return " ".join([what, *ends])

    def read(self, text: str) -> Any:
        """The value that somebody typed; text that is no such value stays text, for :meth:`accept`."""
        if self.kind is bool:
            return _WORDS.get(text.lower(), text)
        try:
            return self.kind(text)
        except ValueError:
            return text

    def accept(self, value: Any) -> tuple[Any] | None:
        """The value in its declared type, as the one item of a tuple; None if it may not be given."""
        if self.kind is float and type(value) is int:
            value = float(value)
        if type(value) is not self.kind or (self.choices and value not in self.choices):
            return None
        if isinstance(value, int | float) and self.kind is not bool and not self._within(value):
            return None
        return (value,)

    def _within(self, value: float) -> bool:
        return self.low <= value <= self.high and value > self.above


def setting(
    default: T,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    choices: Sequence[str] = (),
) -> T:
    """Field of an attack with the values that it may have; a field without this may have any of its type."""
    declared = Setting(kind=type(default), low=low, high=high, above=above, choices=tuple(choices))
    found: T = field(default=default, metadata={_KEY: declared})
    return found


def declared(kind: type, *, besides: Sequence[str]) -> dict[str, Setting]:
    """Name to setting of every field of a dataclass but those in ``besides``."""
    return {
        entry.name: entry.metadata.get(_KEY) or Setting(kind=type(entry.default))
        for entry in fields(kind)
        if entry.name not in besides
    }


def checked(name: str, known: Mapping[str, Setting], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the attack ``name`` in their declared types.

    Raises:
        UsageError: a setting that it does not have, a value of another type or out of range.
    """
    found = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            guess = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"The attack {name} has no setting '{key}'.{guess}", hint=listed(name, known))
        accepted = known[key].accept(value)
        if accepted is None:
            raise UsageError(
                f"The setting {key} of {name} must be {known[key].allowed}, not {value}.",
                hint=listed(name, known),
            )
        (found[key],) = accepted
    return found


def listed(name: str, known: Mapping[str, Setting]) -> str:
    """One line with all settings of an attack."""
    described = "; ".join(f"{key}: {one.allowed}" for key, one in sorted(known.items())) or "none of its own"
    return f"Settings of {name}: {described}; and of every attack: eps, norm."
