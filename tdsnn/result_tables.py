"""Tables of a benchmark result: accuracy under attack for each pair of models, and what a suite adds."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tdsnn.table import CLEAN, MARK, SIGNIFICANT, Table, images_of, interval, p_value, p_values, short, titled
from tdsnn.time_tables import time_tables

if TYPE_CHECKING:
    from tdsnn.results import Cell, Comparison, Result

__all__ = ["conclusions", "tables"]


def tables(result: Result) -> tuple[Table, ...]:
    """Each pair of models side by side, then models without a partner; each followed, as far as there is
    something to say, by what is left of each class, by the tests for masked gradients and by what the time
    metrics found."""
    found = []
    for group in result.groups:
        found.append(_table(result, group))
        # Alone a test says nothing that the warnings do not; of a suite all are shown, also those passed.
        if result.settings.get("masking"):
            found += [*_classes(result, group), _masking(result, group)]
        if result.measured:
            found += time_tables(result, group)
    return tuple(found)


def conclusions(result: Result) -> list[str]:
    """What the comparison of two models says, one sentence for each norm: at the largest radius, after all
    attacks; else for each unit of noise, or without attack."""
    found = []
    cells = {cell.place: cell for cell in result.cells}
    twins = {(model["name"], model["twin"]) for model in result.models}
    for pair in dict.fromkeys((row.model, row.twin) for row in result.comparisons):
        strongest: dict[str, Comparison] = {}
        for row in (row for row in result.comparisons if (row.model, row.twin) == pair):
            kind = _kind(cells[row.place])
            # Of equal strengths the union of attacks, which comes last.
            if kind not in strongest or row.eps_255 >= strongest[kind].eps_255:
                strongest[kind] = row
        balls = [row for row in strongest.values() if cells[row.place].norm]
        noises = [row for row in strongest.values() if row.attack != CLEAN]
        found += [
            _conclusion(row, cells[row.place], twins=pair in twins)
            for row in balls or noises or strongest.values()
        ]
    return found


def _kind(cell: Cell) -> str:
    """Cells of one kind have strengths that can be compared."""
    return CLEAN if cell.attack == CLEAN else cell.norm or cell.unit


def _conclusion(row: Comparison, cell: Cell, *, twins: bool) -> str:
    model, twin = map(short, (row.model, row.twin))
    points = f"{interval(row.difference, '+')} points"
    where = "without attack" if cell.attack == CLEAN else f"under {cell.title} at {_strength(cell)}"
    if row.p_holm >= SIGNIFICANT:
        both = f"{model} and {'its twin ' if twins else ''}{twin}"
        return f"No difference between {both} is shown {where}: {points}."
    better, worse = (model, twin) if row.difference.value > 0 else (twin, model)
    return f"{better} keeps more than {worse} {where}: {points}, {model} minus {twin}."


def _strength(cell: Cell) -> str:
    if cell.norm is not None:
        return f"{cell.eps_255:g} values" if cell.norm == "l0" else f"{cell.eps_255:g}/255"
    return f"sigma {cell.eps_255:g}/255" if cell.unit == "sigma" else f"{cell.unit} {cell.eps_255:g}"


def _table(result: Result, group: tuple[str, ...]) -> Table:
    cells = {(cell.model, cell.place): cell for cell in result.cells}
    differences = {row.place: row for row in result.comparisons if (row.model, row.twin) == (*group, "")[:2]}
    columns = ["attack, /255", *(f"{short(name)} %" for name in group)]
    if len(group) == 2:
        columns += ["difference", "p"]
    marked = {str(model["name"]) for model in result.models if model["masking_signs"]}
    rows = []
    for model, place in cells:
        if model != group[0]:
            continue
        row = [_label(cells[model, place]), *(_accuracy(cells[name, place], marked) for name in group)]
        if len(group) == 2:
            row += _difference(differences.get(place))
        rows.append(row)
    title = f"{' and '.join(group)} on {result.settings['dataset']}, n = {result.settings['n']}"
    suite = result.settings.get("suite")
    if suite:
        title += f", suite {suite['name']}" + ("" if suite["official"] else " (of one's own)")
    return Table(title=title, columns=columns, rows=rows, caption=_caption(result, group))


def _label(cell: Cell) -> str:
    if cell.attack == CLEAN:
        return CLEAN
    strength = f"{cell.title} {'eps' if cell.norm else cell.unit} {cell.eps_255:g}"
    return strength if cell.entered is None else f"then {strength}"


def _accuracy(cell: Cell, marked: Container[str]) -> str:
    if cell.accuracy is None:
        return "refused"
    if cell.entered == 0 and cell.survivors:
        return "-"
    mark = MARK if cell.model in marked and cell.norm is not None else ""
    return interval(cell.accuracy) + mark


def _classes(result: Result, group: Sequence[str]) -> list[Table]:
    """What is left of each class at one radius, the one where nearest to half of the images are left."""
    found = {one["model"]: one for one in result.radii if one["model"] in group and one["norm"] == "linf"}
    if len(found) < len(group):
        return []
    first, n = found[group[0]], result.settings["n"]
    place = min(
        range(len(first["survivors"])),
        key=lambda place: abs(sum(first["survivors"][place]["of_class"]) / n - 0.5),
    )
    rows = []
    for number, label in enumerate(first["classes"]):
        row = [str(label), str(first["images"][number])]
        for name in group:
            one = found[name]
            row += [str(one["clean_correct"][number]), str(one["survivors"][place]["of_class"][number])]
        rows.append(row)
    columns = ["class", "images"]
    for name in group:
        columns += [f"{short(name)} clean", "worst case"]
    medians = [f"{short(name)} {_radius(found[name], first['survivors'][-1]['eps_255'])}" for name in group]
    return [
        Table(
            title=f"Images left of each class at {first['survivors'][place]['eps_255']:g}/255, all attacks",
            columns=columns,
            rows=rows,
            caption="Smallest radius that fools the median image of those that are right without attack: "
            f"{', '.join(medians)}.",
        )
    ]


def _radius(one: Mapping[str, Any], largest: float) -> str:
    median = one["median_smallest_eps_255"]
    return f"above {largest:g}/255" if median is None else f"at most {median:g}/255"


def _masking(result: Result, group: Sequence[str]) -> Table:
    findings = {str(model["name"]): model["masking"] for model in result.models if model["name"] in group}
    tests = list(dict.fromkeys((one["test"], one["title"]) for found in findings.values() for one in found))
    tests.sort(key=lambda test: int(test[0].removeprefix("M")))
    rows, messages = [], []
    for test, title in tests:
        row = [f"{test} {title}"]
        for name in group:
            one = next((one for one in findings[name] if (one["test"], one["title"]) == (test, title)), None)
            row.append(_finding(one))
            if one is not None and one["status"] in ("warn", "fail"):
                messages.append(f"{test} {short(name)}: {one['message']}")
        rows.append(row)
    return Table(
        title="Tests for masked gradients",
        columns=["test", *(short(name) for name in group)],
        rows=rows,
        caption="\n".join(messages),
    )


def _finding(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    return one["status"] if one["figure"] is None else f"{one['status']} ({one['figure']:.3g})"


def _difference(row: Comparison | None) -> list[str]:
    if row is None:
        return ["-", "-"]
    return [interval(row.difference, "+"), p_value(row.p_mcnemar, row.p_holm)]


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
        f"{images_of(settings)}, seed {settings['seed']}, T = {'/'.join(steps)}; "
        + (f"{', '.join(described)}; " if described else "")
        + f"gradient through surrogate: {'; '.join(surrogates)}.",
        "Accuracy without and with attack, 95 % Wilson interval; an image counts under attack only if it is "
        "right without.",
    ]
    if len(group) == 2:
        lines.append(
            f"difference: {short(group[0])} minus {short(group[1])} in percentage points, paired, 95 % "
            f"Tango interval; {p_values('exact McNemar', len(result.comparisons))}."
        )
    if any(cell.entered is not None for cell in result.cells):
        lines.append(
            "then: made only on images that every attack before it, of that radius or a smaller one, left "
            "standing; the accuracy is what is left after all of them."
        )
    lines += [str(model["alone"]) for model in models if model["alone"]]
    lines += [f"REFUSED: {short(model['name'])}: {model['refused']}" for model in models if model["refused"]]
    lines += sorted({str(model["caveat"]) for model in models if model["caveat"]})
    lines += [
        f"{MARK} WARNING: the gradients of {short(model['name'])} may be masked: {sign['message']}"
        for model in models
        for sign in model["masking_signs"]
    ]
    return "\n".join(lines)


def _plain(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())
