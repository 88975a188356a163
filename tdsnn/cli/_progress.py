"""How far work is, on stderr: bars that go away when it is done, and lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tdsnn.cli import _output
from tdsnn.progress import Progress

LINE_SECONDS = 30.0
"""Between two lines in a log."""


@contextmanager
def bar(what: str = "", *, unit: str = "") -> Iterator[Progress]:
    """One bar while the block runs; where there is no terminal, a line every half minute.

    Args:
        what: what is done, until the work says it.
        unit: what is counted, e.g. ``images``.
    """
    # Imported here: a command that shows no bar shall not wait for them.
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn(unit),
        rich_progress.TimeRemainingColumn(),
    )
    err = _output.console(stderr=True)
    if not err.is_terminal:
        yield _lines(what, unit=unit)
        return
    with rich_progress.Progress(*columns, console=err, transient=True) as live:
        task = live.add_task(what, total=None)

        def show(done: int, total: int, doing: str = "", /) -> None:
            live.update(task, completed=done, total=total, description=doing or what)

        yield show


def _lines(what: str, *, unit: str) -> Progress:
    said = time.monotonic()

    def show(done: int, total: int, doing: str = "", /) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            _output.note(f"{doing or what}: {done:,} of {total:,} {unit}".rstrip())

    return show
