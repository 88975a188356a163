"""A bar on stderr over the images that a benchmark judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tdsnn.cli import _output


@contextmanager
def images(total: int) -> Iterator[Callable[[int, str], None]]:
    """What :func:`tdsnn.bench.runner.run_bench` tells of its progress, shown while the block runs."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_output.console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count, label: bar.update(task, advance=count, description=label)
