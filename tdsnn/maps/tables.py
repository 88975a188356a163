"""Tables of a survey: a summary, and one for each metric."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tdsnn.metrics._base import METRICS, Figure
from tdsnn.table import Table

if TYPE_CHECKING:
    from tdsnn.maps.survey import Survey

__all__ = ["refusals", "summary", "tables"]


def tables(found: Survey) -> tuple[Table, ...]:
    """Every figure of every layer, the subjects side by side."""
    return tuple(
        Table(
            title=words(metric),
            columns=("layer", "figure", *found.subjects),
            rows=list(_rows(found, metric)),
            caption="Value [95 % interval]; refused: the layer is too silent or too flat for this metric.",
        )
        for metric in _metrics(found)
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


def summary(found: Survey) -> Table:
    """One row for each metric: its first figure, mean over the layers where every subject has one."""
    rows, said = [], []
    for metric in _metrics(found):
        measured = {layer: found.find(layer, metric) for layer in found.sheets}
        complete = [one for one in measured.values() if one.keys() >= set(found.subjects)]
        first = next((next(iter(one[found.subjects[0]].figures.items())) for one in complete), None)
        layers = f"{len(complete)} of {len(measured)}"
        if first is None:
            rows.append((words(metric), "-", *["-"] * len(found.subjects), layers))
        else:
            key, figure = first
            values = {
                subject: [one[subject].figures[key].value for one in complete if key in one[subject].figures]
                for subject in found.subjects
            }
            label = f"{key}, {figure.unit}" if figure.unit else key
            rows.append((words(metric), label, *map(_spread, values.values()), layers))
        said.append(f"{words(metric)}: {_definition(metric)}")
    said.append("Mean over layers (least to greatest); a layer counts where every column has a number.")
    return Table(
        title=f"Topographic maps, {', '.join(found.sheets)}",
        columns=("metric", "figure", *found.subjects, "layers"),
        rows=rows,
        caption="\n".join(said),
    )


def refusals(found: Survey) -> list[str]:
    """For each metric that has no number somebody might look for: where, and the first reason."""
    lines = []
    for metric in _metrics(found):
        without = [entry for entry in found.entries if entry.metric == metric and entry.error]
        layers = list(dict.fromkeys(entry.layer for entry in without))
        if layers:
            where = "all layers" if len(layers) == len(found.sheets) else ", ".join(layers)
            lines.append(f"{words(metric)} refused in {where}: {without[0].error}")
    return lines


def words(metric: str) -> str:
    """A metric's name in a text."""
    return metric.replace("_", " ")


def _metrics(found: Survey) -> list[str]:
    return list(dict.fromkeys(entry.metric for entry in found.entries))


def _definition(metric: str) -> str:
    """The first line of a metric's file, which goes on with formulas and sources."""
    module = sys.modules[METRICS.load(metric).__module__]
    return (module.__doc__ or "").strip().partition("\n")[0]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:.3g}" if len(values) == 1 else f"{mean:.3g} ({min(values):.3g} to {max(values):.3g})"
