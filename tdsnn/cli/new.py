"""``tdsnn-zoo new``: a manifest of one's own, begun from another entry's."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tdsnn.cli import _output
from tdsnn.cli._completion import dataset_names, zoo_models
from tdsnn.errors import UsageError
from tdsnn.files import undone, write_atomic
from tdsnn.manifest import full_name, list_models, manifest_path, parse, resolve
from tdsnn.paths import bundled, is_checkout, zoo_folders

_NOTES = re.compile(r'^notes *= *(?:"""(?:.|\n)*?"""|".*") *\n', re.MULTILINE)
_NAME = re.compile(r"(?=.{1,100}$)[a-z0-9][a-z0-9_-]*\.[a-z0-9_]+")


def command(
    name: Annotated[str, typer.Argument(help="Of the new entry: ours.fashion_mnist")],
    origin: Annotated[
        str, typer.Option("--from", metavar="NAME", autocompletion=zoo_models, help="Entry to begin from.")
    ],
    twin: Annotated[
        str | None,
        typer.Option("--twin", metavar="NAME", help="Of its twin. Default: NAME with -twin before the dot."),
    ] = None,
    as_json: _output.JsonFlag = False,
) -> None:
    """Begin an entry of your own, and its twin, from another one: two manifests to edit.

    They go to TDSNN_ZOO, or to the zoo/ of a checkout. They are the default variants of their bare names if
    nothing else has those.

    Examples:

    * `tdsnn-zoo new ours.fashion_mnist --from tsresnet18`
    """
    # Other seeds of an entry have no manifest of their own.
    start = resolve(manifest_path(full_name(origin)).stem)
    stem, dot, dataset = name.partition(".")
    if twin is None:
        twin = name if start.twin == start.name else f"{stem}-twin{dot}{dataset}"
    elif twin == name:
        raise UsageError(f"'{name}' cannot be its own twin.", hint="Leave --twin out, or give another name.")
    written = {_target(name): _text(start.name, name, twin)}
    if twin != name:
        written[_target(twin)] = _text(start.twin, twin, name)
    with undone(*written):
        for path, text in written.items():
            write_atomic(path, text.encode())
    if dataset != start.dataset and dataset in dataset_names():
        _output.note(f"The data of {name} is {start.dataset} still: see [data] and [model.arguments].")
    if as_json:
        _output.emit_json({"written": [str(path) for path in written]})
        return
    for path in written:
        _output.console().print(str(path), markup=False, soft_wrap=True)
    # The twin's answers may arrange the sheets of the other.
    first = twin if resolve(name).topographic else name
    _output.note(f"Edit them, then: tdsnn-zoo train {quote(first)}")


def _target(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be the name of an entry.",
            hint="It is MODEL.DATASET in small letters, at most 100 of them, for example ours.fashion_mnist",
        )
    zoo = zoo_folders()[0]
    if zoo == bundled("zoo") and not is_checkout():
        raise UsageError(
            "There is no zoo folder for entries of your own: this one belongs to the installed package.",
            hint="Name one: mkdir -p DIR/models and export TDSNN_ZOO=DIR",
        )
    if manifest_path(name).is_file():
        raise UsageError(f"There is an entry '{name}' already.", hint=f"Edit {manifest_path(name)}")
    return zoo / "models" / f"{name}.toml"


def _text(old: str, new: str, twin: str) -> str:
    """The manifest of an entry with comments and all, under its new name and with another twin.

    What it says of itself, and of trials, is not true of another one.
    """
    text = manifest_path(old).read_text(encoding="utf-8")
    text = re.sub(r"^summary *=.*$", f'summary = "Begun from {old}."', text, count=1, flags=re.MULTILINE)
    text = _NOTES.sub("", text, count=1)
    if _bare(new) in {*map(_bare, list_models()), _bare(twin)}:
        text = re.sub(r"^default *=.*\n", "", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^twin *=.*$", f'twin = "{twin}"', text, count=1, flags=re.MULTILINE)
    if parse(new, text).twin != twin:
        raise UsageError(
            f"The manifest of '{old}' has no line that says only its twin.", hint=f"Edit {manifest_path(old)}"
        )
    return text


def _bare(name: str) -> str:
    return name.partition(".")[0]
