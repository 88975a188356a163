"""One lazy registry for every kind of plug-in: models, datasets, attacks, metrics.

A plug-in is a module in the kind's folder whose file name is the registered name and whose ``__all__``
names exactly one object. Names are found by scanning the folder and the entry points; nothing is imported
until it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tdsnn.errors import UsageError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str], *, kind: str, command: str = "") -> UsageError:
    """Error for an unknown name, with the nearest known ones.

    Args:
        command: shows all known ones; without it the hint names them, as where no command does.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    hint = f"See the known ones: {command}" if command else f"Known: {', '.join(names)}"
    return UsageError(f"There is no {kind} called '{name}'.{guess}", hint=hint)


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Plug-ins of one kind.

    Args:
        kind: what one plug-in is called in messages, e.g. ``"attack"``.
        package: dotted package that is scanned; also the entry-point group for outside packages.
        command: as of :func:`suggest`.
    """

    kind: str
    package: str
    command: str = ""

    def names(self) -> tuple[str, ...]:
        """Sorted names, found without importing any plug-in."""
        return tuple(sorted(_targets(self.package)))

    def load(self, name: str) -> T:
        """Import the plug-in and return the one object its module exports."""
        module_name, _, attribute = self._target(name).partition(":")
        module: Any = importlib.import_module(module_name)
        if not attribute:
            (attribute,) = module.__all__
        return cast(T, getattr(module, attribute))

    def module(self, name: str) -> str:
        """Dotted name of the module that the plug-in is from; imports nothing."""
        return self._target(name).partition(":")[0]

    def _target(self, name: str) -> str:
        targets = _targets(self.package)
        if name not in targets:
            raise suggest(name, self.names(), kind=self.kind, command=self.command)
        return targets[name]


@cache
def _targets(package: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # slow to import, and ``--help`` needs no registry

    folder = Path(__file__).resolve().parent.joinpath(*package.split(".")[1:])
    found = {
        module.name: f"{package}.{module.name}"
        for module in pkgutil.iter_modules([str(folder)])
        if not module.name.startswith("_")
    }
    for entry in entry_points(group=package):
        found.setdefault(entry.name, entry.value)
    return found
