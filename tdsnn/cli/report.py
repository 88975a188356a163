"""``tdsnn-zoo report``: texts made from the zoo's documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn.cli import _output
from tdsnn.errors import MissingError, TdsnnError

if TYPE_CHECKING:
    from tdsnn.types import Manifest, Release

app = typer.Typer(no_args_is_help=True, help="Write texts that are made from releases and official results.")

_Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Zoo entries. Default: all released ones")
]
_Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 1 and name the files that are stale.")
]


# With one command alone Typer would take it for the group itself.
@app.callback()
def _group() -> None: ...


@app.command("cards")
def cards_command(names: _Names = None, check: _Check = False, as_json: _output.JsonFlag = False) -> None:
    """Write the model cards of released zoo entries, as the Hugging Face Hub shows them.

    A card is made from manifest, release, the twin's, and `benchmarks/results`; nothing is measured. An
    embedded entry gets a new README.md, and its release the new checksums; `cards/generated` gets a copy.

    Examples:

    * `tdsnn-zoo report cards`

    * `tdsnn-zoo report cards tsresnet18 sresnet18`

    * `tdsnn-zoo report cards --check`
    """
    files = [path for entry in _released(names) for path in _card(*entry, check=check)]
    if as_json:
        _output.emit_json({"stale" if check else "written": [str(path) for path in files]})
    else:
        for path in files:
            _output.console().print(str(path), markup=False, soft_wrap=True)
    if check and files:
        count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
        raise TdsnnError(
            f"{count} not what the documents give today.", hint="Write them anew: tdsnn-zoo report cards"
        )


def _released(names: list[str] | None) -> list[tuple[Manifest, Release]]:
    """The named entries, or all with a release."""
    from tdsnn.manifest import list_models, load_release, require_writable, resolve

    found = []
    for name in names or list_models():
        require_writable(resolve(name).name)
        release = load_release(name)
        if release is not None:
            found.append((resolve(name), release))
        elif names:
            raise MissingError(
                f"No weights of '{name}' were released, so there is nothing to write a card about.",
                hint=f"Train them: tdsnn-zoo train {name}",
            )
    return found


def _card(manifest: Manifest, release: Release, *, check: bool) -> list[Path]:
    """Write the files of one card, or find the stale ones among them."""
    from tdsnn.data._base import DATASETS
    from tdsnn.manifest import release_path
    from tdsnn.report import cards

    texts, current = cards.contents(manifest, release, DATASETS.load(manifest.dataset).about)
    record = release_path(manifest.name)
    if check:
        stale = [path for path, text in texts.items() if not path.is_file() or path.read_bytes() != text]
        return stale if current.files == release.files else [*stale, record]
    cards.store(texts, current)
    return [*texts, record]
