"""Which models a benchmark is about; a topographic model never comes without its twin."""

from __future__ import annotations

from collections.abc import Sequence

from tdsnn import manifest, zoo


def with_twins(names: Sequence[str]) -> tuple[str, ...]:
    """Full names and paths in order, each topographic zoo entry followed by its twin, without repetition.

    Raises:
        UsageError: an unknown name.
    """
    chosen: list[str] = []
    for name in names:
        if zoo.is_path(name):
            chosen.append(name)
            continue
        entry = manifest.resolve(name)
        chosen.append(entry.name)
        if entry.topographic:
            chosen.append(manifest.resolve(entry.twin).name)
    return tuple(dict.fromkeys(chosen))
