"""What commands may show and how: data to stdout, everything else to stderr. Nothing else prints."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tdsnn.errors import Interrupted, TdsnnError
from tdsnn.files import write_atomic
from tdsnn.processes import is_main
from tdsnn.table import Table as PlainTable
from tdsnn.text import visible

_SVG_COLUMNS = 100

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


class _Console(Console):
    """Shows nothing that would steer the terminal, whether it comes from a name, a file or a server."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console on the current stdout (data) or stderr (messages).

    Off a terminal lines keep their length: a pipe or a log has no width to fit. Of several processes only
    the main one says anything.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    return _Console(stderr=stderr, width=width, highlight=False, quiet=not is_main())


def note(text: str) -> None:
    """A message for people; never part of the data."""
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def fail(error: TdsnnError) -> None:
    """Show an error as one sentence and, below it, what to do next."""
    err = console(stderr=True)
    if not isinstance(error, Interrupted):  # which ends all processes, and the main one says so
        err.quiet = False  # what only one process met, the others cannot tell
    err.print(f"error: {error.message}", style="bold red", markup=False, soft_wrap=True)
    if error.hint:
        err.print(error.hint, markup=False, soft_wrap=True)


def emit_json(document: Any) -> None:
    """Print a JSON document as data."""
    if is_main():
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def show(found: PlainTable, *, svg: Path | None = None) -> None:
    """Print a table of results as :func:`table` does."""
    table(found.title, found.columns, found.rows, caption=found.caption, svg=svg)


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    svg: Path | None = None,
) -> None:
    """Print a table as data. The first column is left-aligned, the others right-aligned.

    All of it is shown as it is: a name may hold what rich would read as markup, and a narrow
    terminal breaks it but cuts nothing off.

    Args:
        svg: also draw the table, title and caption included, into this file.
    """
    grid = Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
    )
    for index, column in enumerate(columns):
        grid.add_column(Text(column), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    console().print(grid)
    if svg is not None and is_main():
        canvas = _Console(record=True, width=_SVG_COLUMNS, file=io.StringIO(), highlight=False)
        canvas.print(grid)
        write_atomic(svg, canvas.export_svg(title="tdsnn-zoo bench").encode())
