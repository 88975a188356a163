"""``tdsnn-zoo list``: what the zoo holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from tdsnn.cli._output import JsonFlag, emit_json, note, table
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.manifest import entry_and_seed, list_models, load_release, resolve
from tdsnn.registry import suggest
from tdsnn.schema import Manifest, Release
from tdsnn.store import source_of


def command(
    dataset: Annotated[str | None, typer.Option(help="Only models trained on this dataset.")] = None,
    topographic: Annotated[
        bool | None,
        typer.Option("--topographic/--no-topographic", help="Only models with, or without, a spatial loss."),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Only models of this architecture.")] = None,
    seeds: Annotated[bool, typer.Option("--seeds", help="Give every released seed its own row.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the models of the zoo, their accuracy and where their weights come from.

    The accuracy of an entry with several released seeds is their mean. An entry whose files are damaged has a
    row that says so.

    Examples:

        tdsnn-zoo list

        tdsnn-zoo list --dataset fashion_mnist --topographic

        tdsnn-zoo list --architecture sresnet18 --json
    """
    rows = [_row(name) for name in list_models()]
    wanted = {"dataset": dataset, "architecture": architecture, "topographic": topographic}
    for option in ("dataset", "architecture"):
        _check(option, wanted[option], {row[option] for row in rows if option in row})
    rows = [row for row in rows if all(value in (None, row.get(option)) for option, value in wanted.items())]
    if not seeds:
        rows = _gathered(rows)
    if json:
        emit_json({"models": rows})
        return
    mean = ", mean over seeds" if any(row["seeds"] > 1 for row in rows) else ""
    table(
        "Models",
        ("model", "dataset", "T", "params", "acc. %", "weights"),
        [_cells(row) for row in rows],
        caption=f"acc. %: clean accuracy on the test images{mean}. More: tdsnn-zoo info MODEL",
    )
    for row in rows:
        if "error" in row:
            note(f"{row['name']}: {row['error']}")


def _row(name: str) -> dict[str, Any]:
    """What there is to say of an entry; of one that cannot be read, why, so that the others are shown."""
    try:
        manifest = resolve(name)
        return _describe(manifest, load_release(name))
    except (UsageError, IntegrityError) as error:
        return {"name": name, "seeds": 0, "error": f"{error.message} {error.hint}".strip()}


def _describe(manifest: Manifest, release: Release | None) -> dict[str, Any]:
    metrics = release.metrics if release else {}
    accuracy = metrics.get("clean_accuracy", {}).get("value")
    return {
        "name": manifest.name,
        "dataset": manifest.dataset,
        "timesteps": manifest.arguments.get("timesteps"),
        "parameters": metrics.get("parameters", {}).get("value"),
        "clean_accuracy_percent": accuracy,
        "seeds": 0 if accuracy is None else 1,
        "topographic": manifest.topographic,
        "weights": source_of(release) if release else None,
        "default": manifest.default,
        "architecture": manifest.architecture,
        "twin": manifest.twin,
        "summary": manifest.summary,
    }


def _gathered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each entry, with the mean accuracy over its released seeds."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        entries.setdefault(entry_and_seed(row["name"])[0], []).append(row)
    return [_mean(seeds) for seeds in entries.values()]


def _mean(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    known = [row["clean_accuracy_percent"] for row in seeds if row.get("clean_accuracy_percent") is not None]
    mean = sum(known) / len(known) if known else None
    return seeds[0] | {"clean_accuracy_percent": mean, "seeds": len(known)}


def _check(option: str, value: object, known: set[str]) -> None:
    if isinstance(value, str) and value not in known:
        raise suggest(value, sorted(known), kind=f"{option} in the zoo")


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], "-", "-", "-", "-", "damaged"]
    parameters, accuracy = row["parameters"], row["clean_accuracy_percent"]
    seeds = f" ({row['seeds']} seeds)" if row["seeds"] > 1 else ""
    return [
        row["name"],
        row["dataset"],
        "-" if row["timesteps"] is None else str(row["timesteps"]),
        "-" if parameters is None else f"{parameters / 1e6:.2f} M",
        "-" if accuracy is None else f"{accuracy:.2f}{seeds}",
        row["weights"] or "none",
    ]
