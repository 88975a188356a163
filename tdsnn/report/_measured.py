"""Sections of a card that come from official result documents: robustness and maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdsnn.report._markdown import NOTHING, code, interval, setting, table, words
from tdsnn.report._tables import Pair
from tdsnn.report.documents import Estimate, Survey
from tdsnn.results import Cell, Comparison, Result
from tdsnn.table import CLEAN, MARK, images_of, p_value, p_values, titled

_SIGNED_NORM = "linf"
"""Norm of the cells that the signs of masking are about."""
_REFUSED = "refused"
_MAPS = (
    ("correlation_distance", "decay", "Correlation of responses, nearest minus farthest units of a window"),
    ("orientation", "smoothness", "Smoothness of the map of preferred orientation, 0 to 1"),
    ("category_smoothness", "smoothness", "Smoothness of the maps of category selectivity, 0 to 1"),
)
"""Metric, which of its figures is shown, and what that is."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table with what has to be said about it."""

    title: str
    text: str
    notes: tuple[str, ...]
    """Sentences below the table, as Markdown."""


def bench_section(result: Result, pair: Pair) -> Section:
    """Accuracy of a pair without and under attack, with the paired difference."""
    names = [one.name for one in pair.entries]
    cells = {(cell.model, cell.place): cell for cell in result.cells}
    differences = {row.place: row for row in result.comparisons if [row.model, row.twin] == names}
    columns = ["attack", "strength", *(f"{heading}, %" for heading in pair.headings)]
    if len(names) == 2:
        columns += ["difference, points", "p"]
    rows = []
    for model, place in cells:
        if model == names[0]:
            across = [cells.get((name, place)) for name in names]
            doubtful = any(cell is not None and marked(result, cell) for cell in across)
            cell = cells[model, place]
            row = [words(cell.title if cell.entered is None else f"then {cell.title}"), strength(cell)]
            row += [NOTHING if cell is None else _accuracy(result, cell) for cell in across]
            if len(names) == 2:
                row += _difference(differences.get(place), doubtful=doubtful)
            rows.append(row)
    settings = result.settings
    title = f"{images_of(settings)}, seed {settings['seed']}"
    if settings.get("suite"):
        title = f"Suite {settings['suite']['name']}: {title[0].lower()}{title[1:]}"
    return Section(
        title=title,
        text=table(columns, rows, left=2),
        notes=tuple(_bench_notes(result, names)),
    )


def strength(cell: Cell) -> str:
    """How strong the attack of a cell was."""
    if cell.attack == CLEAN:
        return NOTHING
    if cell.norm is None and cell.unit != "sigma":
        return f"{cell.unit} {cell.eps_255:g}"
    return f"{f'{cell.norm}, eps' if cell.norm else cell.unit} {cell.eps_255:g}/255"


def marked(result: Result, cell: Cell) -> bool:
    """Whether the cell is of the kind that signs of masking are about, and its model has such signs."""
    return cell.norm == _SIGNED_NORM and bool(_model(result, cell.model)["masking_signs"])


def attacked(result: Result, name: str) -> list[Cell]:
    """Cells of one model under attack that have a number."""
    own = [cell for cell in result.cells if cell.model == name and cell.attack != CLEAN]
    return [cell for cell in own if cell.accuracy is not None]


def signs(result: Result, names: Sequence[str]) -> list[str]:
    """What points to masked gradients in the named models, one sentence for each model concerned."""
    found = []
    for name in names:
        messages = [words(sign["message"]) for sign in _model(result, name)["masking_signs"]]
        if messages:
            found.append(f"The gradients of {code(name)} may be masked: {' '.join(messages)}")
    return found


def survey_sections(survey: Survey, pair: Pair) -> list[Section]:
    """One table for each metric, layers below each other, the models and the control side by side."""
    subjects = [survey.models[one.name] for one in pair.entries] + [survey.control]
    columns = ["layer", *pair.headings, words(survey.control), "n"]
    sections = []
    for metric, figure, title in _MAPS:
        rows, reasons = [], []
        for layer in survey.layers:
            found = [survey.entries.get((subject, layer, metric)) for subject in subjects]
            if any(one is not None for one in found):
                rows.append([code(layer), *_map_row(found, figure)])
                reasons += [f"Refused: {words(one)}" for one in found if isinstance(one, str)]
        if rows:
            notes = tuple(dict.fromkeys(reasons))
            sections.append(Section(title=title, text=table(columns, rows), notes=notes))
    return sections


def titles() -> list[str]:
    """Of all metrics that a card shows of a survey."""
    return [title for _, _, title in _MAPS]


def not_mapped(survey: Survey) -> list[str]:
    """Titles of the shown metrics that a survey lacks altogether."""
    measured = {metric for _, _, metric in survey.entries}
    return [title for metric, _, title in _MAPS if metric not in measured]


def _model(result: Result, name: str) -> Mapping[str, Any]:
    return next(model for model in result.models if model["name"] == name)


def _accuracy(result: Result, cell: Cell) -> str:
    if cell.accuracy is None:
        return _REFUSED
    figure = cell.accuracy
    mark = f" {MARK}" if marked(result, cell) else ""
    return interval(figure.value, (figure.low, figure.high), "z.1f") + mark


def _difference(row: Comparison | None, *, doubtful: bool) -> list[str]:
    if row is None:
        return [NOTHING, NOTHING]
    figure = row.difference
    shown = interval(figure.value, (figure.low, figure.high), "+z.1f") + (f" {MARK}" if doubtful else "")
    return [shown, words(p_value(row.p_mcnemar, row.p_holm))]


def _bench_notes(result: Result, names: Sequence[str]) -> Iterator[str]:
    models = [_model(result, name) for name in names]
    # Older documents have no variants: each of their attacks has one setting.
    attacks = {
        titled(entry["attack"], entry.get("variant", "")): entry["settings"]
        for entry in result.settings["attacks"]
    }
    described = [
        words(
            f"{name} ({', '.join(f'{key} {setting(value)}' for key, value in options.items())})"
            if options
            else name
        )
        for name, options in attacks.items()
    ]
    surrogates = dict.fromkeys(str(model["attack_surrogate"] or "none (exact gradient)") for model in models)
    steps = dict.fromkeys(str(model["timesteps"]) for model in models)
    yield (
        f"Attacks: {', '.join(described) or 'none'}. T = {' / '.join(steps)} time steps; surrogate gradient: "
        f"{words('; '.join(surrogates))}."
    )
    figures = [cell.accuracy for cell in result.cells if cell.accuracy is not None]
    if any(cell.entered is not None for cell in result.cells):
        yield (
            "then: made only on images that every attack before it, of that radius or a smaller one, left "
            "standing; the accuracy is what is left after all of them."
        )
    methods = ", ".join(dict.fromkeys(words(figure.method) for figure in figures))
    yield f"Accuracy: {methods}. Under attack an image counts only if it is right without."
    if len(names) == 2 and result.comparisons:
        method = words(result.comparisons[0].difference.method)
        yield (
            f"Difference: {code(names[0])} minus {code(names[1])} on the same images, {method}; "
            f"{words(p_values('exact McNemar', len(result.comparisons)))}."
        )
    yield from dict.fromkeys(words(model["caveat"]) for model in models if model["caveat"])
    yield from (f"{MARK} {sentence}" for sentence in signs(result, names))
    for cell in result.cells:
        if cell.model in names and cell.error is not None:
            place = f"{words(cell.title)} {strength(cell)}"
            yield f"Refused for {code(cell.model)}, {place}: {words(cell.error)}"


def _map_row(found: Sequence[Mapping[str, Estimate] | str | None], key: str) -> list[str]:
    cells, counts = [], []
    for one in found:
        estimate = None if one is None or isinstance(one, str) else one.get(key)
        if estimate is None:
            cells.append(_REFUSED if isinstance(one, str) else NOTHING)
        else:
            cells.append(interval(estimate.value, (estimate.low, estimate.high), "z.2f"))
            counts.append(f"{estimate.n:,}")
    return [*cells, " / ".join(dict.fromkeys(counts)) or NOTHING]
