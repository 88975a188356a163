"""Tables of what time metrics found, a topographic model beside its twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tdsnn.table import Table, p_value, p_values, short, titled

if TYPE_CHECKING:
    from tdsnn.results import Result, Shift

__all__ = ["by_metric", "time_tables"]

Record = Mapping[str, Any]


def time_tables(result: Result, group: Sequence[str]) -> list[Table]:
    """One for each metric, of the models of a group; of a pair with its shifts."""
    return [_table(title, *found) for title, found in by_metric(result, group).items()]


def by_metric(
    result: Result, group: Sequence[str]
) -> Mapping[str, tuple[Sequence[Record], Mapping[str, Shift]]]:
    """Title of each metric to the records of a group of models, in its order, and to its shifts by key."""
    found = {}
    for metric, variant in dict.fromkeys((one["metric"], one["variant"]) for one in result.measured):
        records = {
            one["model"]: one
            for one in result.measured
            if (one["metric"], one["variant"]) == (metric, variant)
        }
        shifts = {
            one.key: one
            for one in result.shifts
            if (one.metric, one.variant) == (metric, variant) and (one.model, one.twin) == tuple(group)
        }
        found[titled(metric, variant)] = [records[name] for name in group], shifts
    return found


def _table(title: str, records: Sequence[Record], shifts: Mapping[str, Shift]) -> Table:
    keys = dict.fromkeys(key for one in records for key in one["figures"])
    columns = ["figure", "unit", *(short(one["model"]) for one in records)]
    if shifts:
        columns += ["difference", "p"]
    rows = []
    for key in keys or ("-",):
        units = [one["figures"][key]["unit"] for one in records if key in one["figures"]]
        row = [key, *(units or ["-"])[:1], *(_cell(one, key) for one in records)]
        if shifts:
            row += _difference(shifts.get(key))
        rows.append(row)
    return Table(title=title, columns=columns, rows=rows, caption=_caption(records, shifts))


def _cell(record: Record, key: str) -> str:
    figure = record["figures"].get(key)
    if figure is None:
        return "refused" if record["error"] else "-"
    return _spanned(figure["value"], figure["low"], figure["high"])


def _difference(shift: Shift | None) -> list[str]:
    if shift is None:
        return ["-", "-"]
    found = shift.difference
    return [_spanned(found.value, found.low, found.high, sign="+"), p_value(shift.p, shift.p_holm)]


def _spanned(value: float, low: float, high: float, *, sign: str = "") -> str:
    return f"{value:{sign}.4g} [{low:{sign}.4g}, {high:{sign}.4g}]"


def _caption(records: Sequence[Record], shifts: Mapping[str, Shift]) -> str:
    lines = ["Value [95 % interval]; definitions: the docstring of the metric."]
    if shifts:
        first, second = (short(one["model"]) for one in records)
        lines.append(
            f"difference: {first} minus {second} on the same images, bootstrap over images; "
            f"{p_values('paired t-test', len(shifts))}."
        )
    for one in records:
        if one["conditions"]:
            stated = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in one["conditions"].items())
            lines.append(f"{short(one['model'])}: {stated}.")
        lines += [f"{short(one['model'])}, {what}: {why}" for what, why in one["missing"].items()]
        if one["error"]:
            lines.append(f"REFUSED: {short(one['model'])}: {one['error']}")
    return "\n".join(lines)
