"""``tdsnn-zoo new``: a manifest of one's own, begun from another entry's."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tdsnn.cli import _output
from tdsnn.cli._completion import zoo_models
from tdsnn.errors import UsageError
from tdsnn.files import write_atomic
from tdsnn.manifest import full_name, list_models, manifest_path, parse, require_writable, resolve
from tdsnn.paths import zoo_folders

_NOTES = re.compile(r'^notes *= *(?:"""(?:.|\n)*?"""|".*") *\n', re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\.[a-z0-9_]+")


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
    start = resolve(full_name(origin))
    stem, dot, dataset = name.partition(".")
    names = {start.name: name}
    if start.twin != start.name:
        names[start.twin] = twin or f"{stem}-twin{dot}{dataset}"
    written = {_target(new): _text(old, new, names) for old, new in names.items()}
    for path, text in written.items():
        write_atomic(path, text.encode())
    if as_json:
        _output.emit_json({"written": [str(path) for path in written]})
        return
    for path in written:
        _output.console().print(str(path), markup=False, soft_wrap=True)
    _output.note(f"Edit them, then: tdsnn-zoo train {quote(name)}")


def _target(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be the name of an entry.",
            hint="It is MODEL.DATASET in small letters, for example ours.fashion_mnist",
        )
    path = zoo_folders()[0] / "models" / f"{name}.toml"
    if manifest_path(name).is_file():
        raise UsageError(f"There is an entry '{name}' already.", hint=f"Edit {manifest_path(name)}")
    require_writable(name)
    return path


def _text(old: str, new: str, names: dict[str, str]) -> str:
    """The manifest of an entry with comments and all, under its new name, beside its new twin.

    What it says of itself, and of trials, is not true of another one.
    """
    text, (first, *_) = manifest_path(old).read_text(encoding="utf-8"), names.values()
    # Several entries may name one twin, which names one of them, or itself.
    beside = names.get(resolve(old).twin, first)
    text = re.sub(r"^summary *=.*$", f'summary = "Begun from {old}."', text, count=1, flags=re.MULTILINE)
    text = _NOTES.sub("", text, count=1)
    if new.partition(".")[0] in {known.partition(".")[0] for known in list_models()}:
        text = re.sub(r"^default *=.*\n", "", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^twin *=.*$", f'twin = "{beside}"', text, count=1, flags=re.MULTILINE)
    parse(new, text)
    return text
