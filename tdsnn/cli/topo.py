"""``tdsnn-zoo topo``: topographic maps of a model beside its twin, and the preparation of sheets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdsnn.cli import _output, _progress
from tdsnn.cli._completion import map_metric_names, zoo_models
from tdsnn.errors import Interrupted

if TYPE_CHECKING:
    from tdsnn.maps.survey import Survey
    from tdsnn.topography.sheets import CorticalSheet

_KNOWN_METRICS = ", ".join(map_metric_names())


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

_Name = Annotated[
    str, typer.Argument(metavar="MODEL", autocompletion=zoo_models, help="Zoo entry or checkpoint folder.")
]
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
    typer.Option(
        "--out", metavar="DIR", help="Folder for survey.json, tables.txt and figures (PNG and SVG)."
    ),
]
_Twin = Annotated[bool, typer.Option("--twin/--no-twin", help="Measure the twin on the same sheets.")]
_Fresh = Annotated[
    bool, typer.Option("--fresh-sheets", help="Lay out new retinotopic sheets instead of the model's own.")
]
_Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")]


@app.command("show")
def show_command(
    name: _Name,
    twin: _Twin = True,
    layers: _Layers = None,
    metric: _Metrics = None,
    out: _Out = None,
    fresh_sheets: _Fresh = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of resamples and of the shuffled control.")] = 0,
    device: _Device = "auto",
    full: Annotated[bool, typer.Option("--full", help="Show every figure of every layer.")] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Measure the maps of a model, its twin and a control with shuffled positions.

    Gratings are built in; category maps need the fLoc images (TDSNN_DATA/floc). Every figure has a 95 %
    interval; a layer too silent or too flat for a metric is refused, never drawn.

    Examples:

    * `tdsnn-zoo topo tsresnet18 --twin --out maps`

    * `tdsnn-zoo topo tsresnet18 --layers layer2.0 --metric orientation`
    """
    from tdsnn.maps.api import SURVEY, topo

    with _progress.bar() as progress:
        found = topo(
            name,
            twin=twin,
            layers=layers or (),
            metrics=metric,
            out=out,
            fresh=fresh_sheets,
            seed=seed,
            device=device,
            progress=progress,
        )
    if as_json:
        _output.emit_json(found.document())
    else:
        _show(found, full=full)
        if not full:
            _output.note("All figures of all layers: --full" + (", and in tables.txt" if out else "."))
    for stimuli, reason in found.missing.items():
        _output.note(f"Not measured, for lack of the {stimuli} images: {reason}")
    if out is not None:
        _output.note(f"Figures and {SURVEY}: {out}")


@app.command("optimise")
def optimise_command(
    name: _Name,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the new checkpoint.")],
    attempts: Annotated[
        float, typer.Option("--attempts-per-unit", min=0.01, help="Swaps to try for each unit.")
    ] = 100.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the places and of the swaps.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint that DIR has.")] = False,
    device: _Device = "auto",
    as_json: _output.JsonFlag = False,
) -> None:
    """Lay out new sheets for a model and let units that respond alike to gratings become neighbours.

    Writes a checkpoint with the same weights and the new sheets. Training does this by itself where the
    manifest says `preparation = "pre-optimised"`. A stopped search goes on where it was.

    Examples:

    * `tdsnn-zoo topo optimise sresnet18 --out my-sheets`
    """
    from tdsnn.maps.api import optimise_sheets

    words = ["tdsnn-zoo", "topo", "optimise", name, "--out", str(out)]
    words += ["--attempts-per-unit", f"{attempts:g}", "--seed", str(seed)]
    words += ["--device", device] if device != "auto" else []
    again = shlex.join([*words, *(["--force"] if force else [])])
    with _progress.bar() as progress:
        try:
            sheets = optimise_sheets(
                name,
                out=out,
                attempts_per_unit=attempts,
                seed=seed,
                force=force,
                device=device,
                progress=progress,
            )
        except KeyboardInterrupt as stop:
            raise Interrupted("Stopped; the search was saved.", hint=f"Go on with: {again}") from stop
    logs = {layer: sheet.log for layer, sheet in sheets.items()}
    if as_json:
        _output.emit_json(logs)
    else:
        _output.table(
            f"Pre-optimised sheets of {name}",
            ("layer", "units", "swaps tried", "kept", "r before", "r after"),
            [_search_row(layer, sheet) for layer, sheet in sheets.items()],
            caption="r: correlation of response similarity with proximity, mean over 64 neighbourhoods.",
        )
    _output.note(f"Checkpoint: {out}")


def _search_row(layer: str, sheet: CorticalSheet) -> tuple[str, ...]:
    log = sheet.log
    (_, before), *_, (_, after) = log["alignment"]
    counts = (len(sheet.positions), log["attempts"], log["accepted"])
    return (layer, *(f"{count:,}" for count in counts), f"{before:.3f}", f"{after:.3f}")


def _show(found: Survey, *, full: bool) -> None:
    from tdsnn.maps.tables import refusals, summary, tables

    for table in tables(found) if full else [summary(found)]:
        _output.show(table)
    for line in refusals(found):
        _output.note(line)
    # Without colours it would be a block of equal characters.
    if _output.console().color_system:
        _view(found)


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
