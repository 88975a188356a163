"""``tdsnn-zoo info``: everything about one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tdsnn.cli._completion import zoo_models
from tdsnn.cli._output import JsonFlag, console, emit_json, table
from tdsnn.manifest import load_release, resolve
from tdsnn.naming import parse
from tdsnn.schema import Manifest, Release, plain
from tdsnn.store import available, stored

_SOURCES = {
    "embedded": "embedded in the project",
    "folder": "your own zoo folder",
    "cache": "cache of this machine",
    "hub": "Hub, not downloaded yet",
    None: "none released",
}


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            autocompletion=zoo_models,
            help="Full name, the bare name of a default variant, or the folder of a run or a checkpoint.",
        ),
    ],
    json: JsonFlag = False,
) -> None:
    """Show a model's recipe, twin, metrics and where its weights come from; of a run also how to go on.

    Examples:

        tdsnn-zoo info tsresnet18

        tdsnn-zoo info sresnet18.fashion_mnist --json

        tdsnn-zoo info runs/tsresnet18.fashion_mnist
    """
    if isinstance(subject := parse(name), Path):
        _show_folder(subject, json=json)
        return
    manifest = resolve(name)
    release = load_release(manifest.name)
    if json:
        emit_json(_document(manifest, release))
        return
    _show_manifest(manifest)
    if release:
        _show_release(release)


def _show_folder(folder: Path, *, json: bool) -> None:
    from tdsnn.cli._folder_info import describe_folder

    found = describe_folder(folder)
    if json:
        emit_json(found)
    else:
        _show_fields(found)


def _document(manifest: Manifest, release: Release | None) -> dict[str, Any]:
    return {
        **manifest.document(),
        "topographic": manifest.topographic,
        "weights": available(manifest.name),
        "folder": str(stored(manifest.name)) if _stored(manifest) else None,
        "release": plain(release) if release else None,
    }


def _stored(manifest: Manifest) -> bool:
    return available(manifest.name) in ("embedded", "folder")


def _show_manifest(manifest: Manifest) -> None:
    source = _SOURCES[available(manifest.name)]
    if _stored(manifest):
        source += f": {stored(manifest.name)}"
    fields = {
        "summary": manifest.summary,
        "architecture": manifest.architecture,
        "arguments": _inline(manifest.arguments),
        "dataset": manifest.dataset,
        "topography": _inline(manifest.topography.table()),
        "recipe": _inline(plain(manifest.recipe)),
        "twin": manifest.twin,
        "weights": source,
        "licence": manifest.licence,
        "citation": manifest.citation,
        "notes": manifest.notes,
    }
    console().print(manifest.name, style="bold", markup=False)
    _show_fields(fields)


def _show_fields(fields: Mapping[str, Any]) -> None:
    out = console()
    for key, value in fields.items():
        if value:
            shown = _inline(value) if isinstance(value, dict) else value
            shown = ", ".join(map(str, value)) if isinstance(value, list) else shown
            out.print(f"{key:<13} {shown}", markup=False)


def _show_release(release: Release) -> None:
    out = console()
    if release.hub_repo:
        out.print(f"{'Hub':<13} {release.hub_repo} at {release.hub_commit}", markup=False)
    # Lists, such as the log of all epochs, are for --json.
    provenance = {key: value for key, value in release.provenance.items() if not isinstance(value, list)}
    if provenance:
        out.print(f"{'provenance':<13} {_inline(provenance)}", markup=False)
    for record in release.files:
        out.print(f"{'file':<13} {record.path}, {record.size:,} bytes, sha256 {record.sha256}", markup=False)
    single = {key: metric for key, metric in release.metrics.items() if "layers" not in metric}
    if single:
        table(
            "Metrics",
            ("metric", "value", "unit", "n", "95 % interval"),
            [_row(*item) for item in single.items()],
        )
    layered = {key: metric for key, metric in release.metrics.items() if "layers" in metric}
    if layered:
        layers = list(dict.fromkeys(layer for metric in layered.values() for layer in metric["layers"]))
        rows = [
            [key, *(_number(metric["layers"].get(layer)) for layer in layers)]
            for key, metric in layered.items()
        ]
        units = "; ".join(f"{key}: {metric.get('unit', 'no unit')}" for key, metric in layered.items())
        table("Metrics by layer", ("metric", *layers), rows, caption=units)


def _row(name: str, metric: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = metric.get("interval") or (None, None)
    interval = "-" if low is None else f"{_number(low)} to {_number(high)}"
    count = metric.get("n")
    return (
        name,
        _number(metric.get("value")),
        str(metric.get("unit", "-")),
        "-" if count is None else f"{count:,}",
        interval,
    )


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
