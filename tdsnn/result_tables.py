"""Tables of a benchmark result, one for each pair of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdsnn.results import CLEAN, Cell, Comparison, Result, titled
from tdsnn.table import Table, interval, p_value, short

__all__ = ["tables"]


def tables(result: Result) -> tuple[Table, ...]:
    """Each pair of models side by side, then models without a partner."""
    compared = {(row.model, row.twin): None for row in result.comparisons}
    paired = {name for pair in compared for name in pair}
    names = [str(model["name"]) for model in result.models]
    groups = [*compared, *((name,) for name in names if name not in paired)]
    return tuple(_table(result, group) for group in groups)


def _table(result: Result, group: tuple[str, ...]) -> Table:
    cells = {(cell.model, cell.place): cell for cell in result.cells}
    differences = {row.place: row for row in result.comparisons if (row.model, row.twin) == (*group, "")[:2]}
    columns = ["attack, /255", *(f"{short(name)} %" for name in group)]
    if len(group) == 2:
        columns += ["difference", "p"]
    rows = []
    for model, place in cells:
        if model != group[0]:
            continue
        row = [_label(cells[model, place]), *(_accuracy(cells[name, place]) for name in group)]
        if len(group) == 2:
            row += _difference(differences.get(place))
        rows.append(row)
    title = f"{' and '.join(group)} on {result.settings['dataset']}, n = {result.settings['n']}"
    return Table(title=title, columns=columns, rows=rows, caption=_caption(result, group))


def _label(cell: Cell) -> str:
    if cell.attack == CLEAN:
        return CLEAN
    return f"{cell.title} {'eps' if cell.norm else 'sigma'} {cell.eps_255:g}"


def _accuracy(cell: Cell) -> str:
    return "refused" if cell.accuracy is None else interval(cell.accuracy)


def _difference(row: Comparison | None) -> list[str]:
    if row is None:
        return ["-", "-"]
    return [interval(row.difference, "+"), p_value(row.p_holm)]


def _caption(result: Result, group: tuple[str, ...]) -> str:
    settings = result.settings
    attacks: Mapping[str, Mapping[str, Any]] = {
        titled(entry["attack"], entry["variant"]): entry["settings"] for entry in settings["attacks"]
    }
    described = [f"{name} ({_plain(options)})" if options else name for name, options in attacks.items()]
    models = [model for model in result.models if model["name"] in group]
    steps = sorted({str(model["timesteps"]) for model in models})
    surrogates = sorted({str(model["attack_surrogate"] or "none (exact gradient)") for model in models})
    lines = [
        f"First {settings['n']} test images, seed {settings['seed']}, T = {'/'.join(steps)}; "
        f"{', '.join(described)}; gradient through surrogate: {'; '.join(surrogates)}.",
        "Accuracy without and with attack, 95 % Wilson interval; an image counts under attack only if it is "
        "right without.",
    ]
    if len(group) == 2:
        lines.append(
            f"difference: {short(group[0])} minus {short(group[1])} in percentage points, paired, 95 % "
            f"Tango interval; p: exact McNemar, Holm over {len(result.comparisons)} comparisons."
        )
    lines += [str(model["alone"]) for model in models if model["alone"]]
    lines += [f"REFUSED: {short(model['name'])}: {model['refused']}" for model in models if model["refused"]]
    lines += sorted({str(model["caveat"]) for model in models if model["caveat"]})
    lines += [
        f"WARNING: the gradients of {short(model['name'])} may be masked: {sign['message']}"
        for model in models
        for sign in model["masking_signs"]
    ]
    return "\n".join(lines)


def _plain(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())
