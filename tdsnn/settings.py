"""Plug-ins with settings: frozen dataclasses whose fields people set by ``NAME:KEY=VALUE,...``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any, ClassVar, get_type_hints

import msgspec

from tdsnn.errors import UsageError
from tdsnn.validation import check


@dataclass(frozen=True, kw_only=True)
class Configured:
    """Base of attacks and time metrics: fields are settings, each with a default and a type that says which
    values it may have, ``Annotated[int, Meta(ge=1, le=100)]`` or ``Literal["ce", "dlr"]``."""

    noun: ClassVar[str]
    """What such a plug-in is called in messages, e.g. ``attack``."""
    common: ClassVar[tuple[str, ...]] = ()
    """Keys that every plug-in of the kind takes besides its settings."""

    name: str = ""
    """Registered name; without one that of the class in lower case."""

    def __post_init__(self) -> None:
        # The class is frozen for its users; here it gets its name and values of the declared types.
        if not self.name:
            object.__setattr__(self, "name", type(self).__name__.lower())
        for key, value in self.read(self.name, self.settings).items():
            object.__setattr__(self, key, value)

    @classmethod
    @cache
    def declared(cls) -> type[msgspec.Struct]:
        """All settings as a table that takes nothing else."""
        types = get_type_hints(cls, include_extras=True)
        settings = [(one.name, types[one.name], one.default) for one in fields(cls) if one.name != "name"]
        return msgspec.defstruct("Settings", settings, frozen=True, kw_only=True, forbid_unknown_fields=True)

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any], *, typed: bool = False) -> dict[str, Any]:
        """Settings of the plug-in registered as ``name``, in their declared types.

        Args:
            typed: values may be texts from a command line.

        Raises:
            UsageError: a setting that it does not have, a value of another type or out of range.
        """
        known = cls.declared()
        own = ", ".join(known.__struct_fields__) or "none of its own"
        common = f"; of every {cls.noun}: {', '.join(cls.common)}" if cls.common else ""
        found = check(
            settings,
            known,
            name=f"The {cls.noun} {name}",
            typed=typed,
            hint=f"Settings of {name}: {own}{common}.",
        )
        return {key: getattr(found, key) for key in settings}

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting and its value."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        defaults = type(self)().settings
        return {key: value for key, value in self.settings.items() if value != defaults[key]}


def stated_settings(text: str, *, example: str, leading: str | None = None) -> dict[str, list[str]]:
    """What ``NAME:KEY=VALUE,...`` states: key to its values in order, as they are typed.

    Args:
        example: what to type, for the hint.
        leading: key that the first value may leave out.

    Raises:
        UsageError: a part that is not of the form key=value.
    """
    _, colon, rest = text.partition(":")
    found: dict[str, list[str]] = {}
    for place, part in enumerate(rest.split(",") if colon else []):
        key, equals, value = (word.strip() for word in part.partition("="))
        if leading and place == 0 and not equals:
            key, equals, value = leading, "=", key
        if not (key and equals and value):
            raise UsageError(f"'{part}' in '{text}' is not of the form key=value.", hint=example)
        found.setdefault(key, []).append(value)
    return found


def once(stated: Mapping[str, list[str]], text: str, *, hint: str) -> dict[str, str]:
    """The one value of each key that ``text`` states.

    Raises:
        UsageError: a key with two values.
    """
    for key, values in stated.items():
        if len(values) > 1:
            raise UsageError(f"'{text}' states {key} twice.", hint=hint)
    return {key: values[0] for key, values in stated.items()}


def as_typed(settings: Mapping[str, Any]) -> str:
    """Settings as people type them: ``KEY=VALUE,...``."""
    return ",".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
    )
