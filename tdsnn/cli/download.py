"""``tdsnn-zoo download``: make sure that a model's verified files are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tdsnn import zoo
from tdsnn.cli._output import JsonFlag, console, emit_json, note

_ORIGINS = {
    "embedded": "comes with the project and was verified; no network was used",
    "cache": "was in the cache already and was verified; no network was used",
    "hub": "was fetched from the Hub and verified",
}


def command(
    name: Annotated[str, typer.Argument(help="Full name, or the bare name of a default variant.")],
    to: Annotated[
        Path | None, typer.Option(help="Copy the files into this folder too.", file_okay=False)
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Fetch a model's checkpoint, verify every file by SHA-256 and print where it lies.

    Examples:

        tdsnn-zoo download tsresnet18

        tdsnn-zoo download tsresnet18.fashion_mnist --to my-checkpoint
    """
    location = zoo.download(name, to=to)
    folder = str(location.folder.resolve())
    if json:
        emit_json({"name": location.name, "folder": folder, "source": location.source})
        return
    note(f"{location.name} {_ORIGINS[location.source]}.")
    console().print(folder, markup=False)
