"""What the shell offers when somebody presses Tab: names that are known here, found without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tdsnn.benchmark.suites import suite_names
from tdsnn.manifest import list_models
from tdsnn.registry import Registry

__all__ = [
    *("attack_names", "complete", "dataset_names", "format_names", "map_metric_names", "metric_names"),
    *("suites", "zoo_models"),
]


def complete(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """For ``autocompletion``: those of the names that begin as the word does."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _scanned(package: str) -> Callable[[], tuple[str, ...]]:
    # The registries of the packages themselves would import torch, which neither --help nor Tab must.
    return Registry[object](kind="", package=package).names


attack_names = _scanned("tdsnn.attacks")
metric_names = _scanned("tdsnn.temporal")
map_metric_names = _scanned("tdsnn.metrics")
format_names = _scanned("tdsnn.exporting.formats")
dataset_names = _scanned("tdsnn.data")
suites = complete(suite_names)


@complete
def zoo_models() -> list[str]:
    """Full names, and the bare names that they begin with."""
    full = list_models()
    return sorted({*full, *(name.partition(".")[0] for name in full)})
