"""Which models a benchmark is about; a topographic model never comes without its twin."""

from __future__ import annotations

from collections.abc import Sequence

from tdsnn import manifest, store


def with_twins(names: Sequence[str]) -> tuple[str, ...]:
    """Full names, paths and Hub references in order, each topographic entry followed by its twin, once each.

    Raises:
        UsageError: an unknown name.
    """
    chosen: list[str] = []
    for name in names:
        if not store.is_entry(name):
            chosen.append(name)
            continue
        entry = manifest.resolve(name)
        chosen.append(entry.name)
        if entry.topographic:
            chosen.append(manifest.resolve(entry.twin).name)
    return tuple(dict.fromkeys(chosen))
