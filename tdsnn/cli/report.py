"""``tdsnn-zoo report``: texts, tables and figures made from the zoo's documents."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn.cli import _output
from tdsnn.cli._completion import zoo_models
from tdsnn.drawing import require_format
from tdsnn.errors import MissingError, TdsnnError
from tdsnn.files import require_file

if TYPE_CHECKING:
    from tdsnn.schema import Manifest, Release

app = typer.Typer(
    no_args_is_help=True, help="Texts, tables and figures that are made from releases and results."
)

_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", autocompletion=zoo_models, help="Zoo entries. Default: all released ones"
    ),
]
_Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 1 and name the files that are stale.")
]


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


@app.command("official")
def official_command(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="Folder that `bench --out` or `topo --out` wrote, or its result.json or survey.json.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the document is called there.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a document of that name.")] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Make a result official: the cards of its models show it from now on.

    The document goes to `benchmarks/results`, or for entries of a zoo folder of your own to its `results`,
    and the cards are written anew. It must be about weights that were released, a model beside its twin.

    Examples:

    * `tdsnn-zoo bench ours.digits --suite standard-v1 --out DIR`, then
      `tdsnn-zoo report official DIR --name ours-standard`
    """
    from tdsnn.report.official import make_official

    written, models = make_official(place, name=name, force=force)
    files = [path for entry in _released([*models]) for path in _card(*entry, check=False)]
    if as_json:
        _output.emit_json({"written": [str(path) for path in (written, *files)]})
    else:
        for path in (written, *files):
            _output.console().print(str(path), markup=False, soft_wrap=True)


@app.command("sweep")
def sweep_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.json",
            help="One of `benchmarks/results/sweeps`, or a file that `tdsnn-zoo sweep --release` wrote.",
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Group that the others are compared with. Default: the twin without spatial loss, if there "
            "is exactly one, else the first group.",
        ),
    ] = None,
    plot: Annotated[
        list[Path] | None,
        typer.Option("--plot", help="Draw the figure into this .png or .svg file; repeatable."),
    ] = None,
    as_json: _output.JsonFlag = False,
) -> None:
    """Compare what a sweep tried: accuracy on the held-out images, topography and time of each setting.

    A group is an entry with one label; its numbers are means over its seeds. The figure shows accuracy
    against P(r, d), the correlation of similarity of firing with proximity, or against CPU time if no group
    has a spatial loss.

    Examples:

    * `tdsnn-zoo report sweep runs/strengths/results.json`

    * `tdsnn-zoo report sweep runs/strengths/results.json --baseline alpha-0.03 --plot strengths.svg`

    * `tdsnn-zoo report sweep strengths --json`
    """
    from tdsnn.report._sweep_documents import find_sweep
    from tdsnn.report.sweep import summarise

    for path in plot or ():
        require_format(path)
        require_file(path, option="--plot")
    report = summarise(find_sweep(name), baseline=baseline)
    if plot:
        from tdsnn.report._sweep_figure import draw

        draw(report, plot)
    if as_json:
        _output.emit_json(report.document())
    else:
        from tdsnn.cli._sweep_table import show

        show(report)
    for path in plot or ():
        _output.note(f"Figure: {path}")


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
                hint=f"Train them: tdsnn-zoo train {quote(name)}",
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
