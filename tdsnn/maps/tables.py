"""Tables of a survey, one for each metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tdsnn.metrics._base import Figure
from tdsnn.table import Table

if TYPE_CHECKING:
    from tdsnn.maps.survey import Survey

__all__ = ["tables"]


def tables(found: Survey) -> tuple[Table, ...]:
    """Every figure of every layer, the subjects side by side."""
    return tuple(
        Table(
            title=metric.replace("_", " "),
            columns=("layer", "figure", *found.subjects),
            rows=list(_rows(found, metric)),
            caption="Value [95 % interval]; refused: the layer is too silent or too flat for this metric.",
        )
        for metric in dict.fromkeys(entry.metric for entry in found.entries)
    )


def _rows(found: Survey, metric: str) -> Iterator[tuple[str, ...]]:
    for layer in found.sheets:
        measured = found.find(layer, metric)
        keys = dict.fromkeys(key for one in measured.values() for key in one.figures)
        for key in keys or ("-",):
            cells = [
                _cell(measured[name].figures.get(key)) if name in measured else "refused"
                for name in found.subjects
            ]
            yield (layer, key, *cells)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]{unit}"
