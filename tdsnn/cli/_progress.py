"""Bars on stderr that go away when the work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tdsnn.cli import _output
from tdsnn.progress import Progress


@contextmanager
def bar(what: str = "", *, unit: str = "") -> Iterator[Progress]:
    """One bar while the block runs.

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
    with rich_progress.Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as live:
        task = live.add_task(what, total=None)

        def show(done: int, total: int, doing: str = "", /) -> None:
            live.update(task, completed=done, total=total, description=doing or what)

        yield show
