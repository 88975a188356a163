"""``tdsnn-zoo topo``: topographic maps of a model beside its twin, and the preparation of sheets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdsnn.cli import _output, _progress
from tdsnn.errors import Interrupted, UsageError
from tdsnn.registry import Registry, suggest

if TYPE_CHECKING:
    from tdsnn.maps.survey import Survey
    from tdsnn.metrics._base import Figure
    from tdsnn.progress import Progress
    from tdsnn.topography.sheets import CorticalSheet
    from tdsnn.zoo import Opened

_KNOWN_METRICS = ", ".join(Registry[object]("metric", "tdsnn.metrics", "tdsnn-zoo topo --help").names())


class _ShowFirst(typer.core.TyperGroup):
    """Takes ``topo MODEL`` for ``topo show MODEL``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_ShowFirst,
    no_args_is_help=True,
    help="Topographic maps of a model beside its twin. `topo MODEL` is short for `topo show MODEL`.",
)

_Name = Annotated[str, typer.Argument(metavar="MODEL", help="Zoo entry or checkpoint folder.")]
_Layers = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="LAYER", help="Layer with a sheet, repeatable. Default: all"),
]
_Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help=f"Metric, repeatable: {_KNOWN_METRICS}. Default: all",
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for survey.json and the figures (PNG and SVG)."),
]
_Twin = Annotated[bool, typer.Option("--twin/--no-twin", help="Measure the twin on the same sheets.")]
_Fresh = Annotated[
    bool, typer.Option("--fresh-sheets", help="Lay out new retinotopic sheets instead of the model's own.")
]


@app.command("show")
def show_command(
    name: _Name,
    twin: _Twin = True,
    layers: _Layers = None,
    metric: _Metrics = None,
    out: _Out = None,
    fresh_sheets: _Fresh = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of resamples and of the shuffled control.")] = 0,
    as_json: _output.JsonFlag = False,
) -> None:
    """Measure the maps of a model, its twin and a control with shuffled positions.

    Gratings are built in; category maps need the fLoc images (TDSNN_DATA/floc). Every figure has a 95 %
    interval; a layer too silent or too flat for a metric is refused, never drawn.

    Examples:

    * `tdsnn-zoo topo tsresnet18 --twin --out maps`

    * `tdsnn-zoo topo tsresnet18 --layers layer2.0 --metric orientation`
    """
    subjects, sheets, shape = _load(name, twin=twin, layers=layers, fresh=fresh_sheets, seed=seed)
    from tdsnn.maps.survey import survey

    with _progress.bar() as progress:
        found = survey(
            {subject: opened.model for subject, opened in subjects.items()},
            sheets,
            shape=shape,
            metrics=metric,
            seed=seed,
            weights={subject: opened.weights_sha256 for subject, opened in subjects.items()},
            progress=progress,
        )
        if out is not None:
            _store(found, out, progress)
    if as_json:
        _output.emit_json(found.document())
    else:
        _show(found)
    for stimuli, reason in found.missing.items():
        _output.note(f"Not measured, for lack of the {stimuli} images: {reason}")
    if out is not None:
        _output.note(f"Figures and survey.json: {out}")


@app.command("optimise")
def optimise_command(
    name: _Name,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the new checkpoint.")],
    attempts: Annotated[
        float, typer.Option("--attempts-per-unit", min=0.01, help="Swaps to try for each unit.")
    ] = 100.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the places and of the swaps.")] = 0,
    as_json: _output.JsonFlag = False,
) -> None:
    """Lay out new sheets for a model and let units that respond alike to gratings become neighbours.

    Writes a checkpoint with the same weights and the new sheets. Training does this by itself where the
    manifest says `preparation = "pre-optimised"`. A stopped search goes on where it was.

    Examples:

    * `tdsnn-zoo topo optimise sresnet18 --out my-sheets`
    """
    from tdsnn import paths, zoo
    from tdsnn.data._base import DATASETS
    from tdsnn.schema import Topography
    from tdsnn.train.preparation import fresh_sheets, prepare_sheets

    opened = zoo.open_model(name)
    opened.model.compile_operators()
    shape = DATASETS.load(opened.config.dataset).shape
    state = paths.cache_dir() / "positions" / f"{opened.weights_sha256[:12]}-{seed}-{attempts:g}"
    topography = Topography(sheet_seed=seed, attempts_per_unit=attempts)
    words = ["tdsnn-zoo", "topo", "optimise", name, "--out", str(out)]
    again = shlex.join([*words, "--attempts-per-unit", f"{attempts:g}", "--seed", str(seed)])
    with _progress.bar() as progress:
        try:
            opened.model.sheets = prepare_sheets(
                fresh_sheets(opened.model, topography, image_size=shape[1:]),
                opened.model,
                topography,
                shape=shape,
                source={"model": opened.config.name, "weights_sha256": opened.weights_sha256},
                folder=state,
                progress=progress,
            )
        except KeyboardInterrupt as stop:
            raise Interrupted("Stopped; the search was saved.", hint=f"Go on with: {again}") from stop
    zoo.save(opened.model, out, name=opened.config.name, dataset=opened.config.dataset)
    logs = {layer: sheet.log for layer, sheet in opened.model.sheets.items()}
    if as_json:
        _output.emit_json(logs)
    else:
        _output.table(
            f"Pre-optimised sheets of {opened.config.name}",
            ("layer", "units", "swaps tried", "kept", "r before", "r after"),
            [_search_row(layer, sheet) for layer, sheet in opened.model.sheets.items()],
            caption="r: correlation of response similarity with proximity, mean over 64 neighbourhoods.",
        )
    _output.note(f"Checkpoint: {out}")


def _search_row(layer: str, sheet: CorticalSheet) -> tuple[str, ...]:
    log = sheet.log
    (_, before), *_, (_, after) = log["alignment"]
    counts = (len(sheet.positions), log["attempts"], log["accepted"])
    return (layer, *(f"{count:,}" for count in counts), f"{before:.3f}", f"{after:.3f}")


def _load(
    name: str, *, twin: bool, layers: list[str] | None, fresh: bool, seed: int
) -> tuple[dict[str, Opened], dict[str, Any], tuple[int, int, int]]:
    """Subjects by name, the sheets to measure on, and the shape of the images."""
    from tdsnn import manifest, naming, zoo
    from tdsnn.data._base import DATASETS

    subject = naming.parse(name)
    entry = manifest.resolve(subject) if isinstance(subject, str) else None
    opened = zoo.open_model(name)
    subjects = {opened.config.name: opened}
    if twin and entry is not None and entry.topographic:
        subjects[f"{entry.twin} (twin)"] = zoo.open_model(entry.twin)
    shape = DATASETS.load(opened.config.dataset).shape
    sheets = opened.model.sheets
    if fresh:
        from tdsnn.schema import Topography
        from tdsnn.train.preparation import fresh_sheets

        sheets = fresh_sheets(opened.model, Topography(sheet_seed=seed), image_size=shape[1:])
    if not sheets:
        raise UsageError(
            f"'{name}' has no cortical sheet.",
            hint=f"Measure it on new ones: tdsnn-zoo topo {name} --fresh-sheets",
        )
    for layer in layers or ():
        if layer not in sheets:
            raise suggest(layer, sheets, kind="layer with a sheet", command=f"tdsnn-zoo info {name}")
    # Last, because it can take half a minute.
    for each in subjects.values():
        each.model.compile_operators()
    return subjects, {layer: sheets[layer] for layer in layers or sheets}, shape


def _store(found: Survey, folder: Path, progress: Progress) -> None:
    import json

    from tdsnn.files import write_atomic
    from tdsnn.maps.figures import draw

    text = json.dumps(found.document(), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomic(folder / "survey.json", text.encode())
    draw(found, folder, progress=progress)


def _show(found: Survey) -> None:
    metrics = tuple(dict.fromkeys(entry.metric for entry in found.entries))
    for metric in metrics:
        _output.table(
            metric.replace("_", " "),
            ("layer", "figure", *found.subjects),
            list(_rows(found, metric)),
            caption="Value [95 % interval]; refused: the layer is too silent or too flat for this metric.",
        )
    reasons = dict.fromkeys(entry.error for entry in found.entries if entry.error)
    for reason in reasons:
        _output.note(f"refused: {reason}")
    # Without colours it would be a block of equal characters.
    if _output.console().color_system:
        _view(found)


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


def _view(found: Survey) -> None:
    """The orientation map that is most like V1's, each subject beside the other."""
    from rich.table import Table

    from tdsnn.cli._sheet_view import sheet_view

    for layer in sorted(found.sheets, key=lambda layer: layer != "layer2.0"):
        measured = found.find(layer, "orientation")
        maps = {name: measured[name].maps for name in found.subjects if name in measured}
        if found.subjects[0] not in maps:
            continue
        grid = Table.grid(padding=(0, 2))
        grid.add_row(*maps)
        views = [
            sheet_view(one["preference"], found.sheet(name, layer).positions.numpy())
            for name, one in maps.items()
        ]
        for lines in zip(*views, strict=True):
            grid.add_row(*lines)
        _output.console().print(f"Preferred orientation, {layer}; hue: degrees, grey: neighbours disagree.")
        _output.console().print(grid)
        return
