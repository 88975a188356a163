"""``tdsnn-zoo download``: make sure that a model's verified files are on this machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdsnn import store
from tdsnn.cli._completion import zoo_models
from tdsnn.cli._output import JsonFlag, console, emit_json, note
from tdsnn.errors import Interrupted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_ORIGINS = {
    "embedded": "comes with the project and was verified; no network was used",
    "folder": "is in your own zoo folder and was verified; no network was used",
    "cache": "was in the cache already and was verified",
    "hub": "was fetched from the Hub and verified",
}


def command(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=zoo_models,
            help="Full name, bare name of a default variant, or a repository: owner/name[@revision].",
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch, tag or commit to take instead of the released one."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Copy the files into this folder too.", file_okay=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Fetch again, and replace other files of these names in --to.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Fetch a model's checkpoint, verify every file by SHA-256 and print where it lies.

    A download that was stopped goes on where it was; an altered file of the cache is fetched anew.

    Examples:

        tdsnn-zoo download tsresnet18

        tdsnn-zoo download tsresnet18.fashion_mnist --to my-checkpoint

        tdsnn-zoo download some-lab/their-tdsnn@v1
    """
    try:
        with closing(_Bars()) as bars:
            location = store.download(name, to=to, revision=revision, force=force, progress=bars)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            "Stopped; what has arrived is kept.", hint="Run the same command again to go on."
        ) from stop
    folder = str(location.folder.resolve())
    if json:
        emit_json({"name": location.name, "folder": folder, "source": location.source})
        return
    note(f"{location.name} {_ORIGINS[location.source]}.")
    console().print(folder, markup=False, soft_wrap=True)


class _Bars:
    """Bars on stderr, one for each file, from its first byte on; without a download nothing is imported."""

    def __init__(self) -> None:
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, done: int, total: int, what: str = "", /) -> None:
        if self._live is None:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
            )
            err = console(stderr=True)
            self._live = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
            self._live.start()
        if what not in self._tasks:
            self._tasks[what] = self._live.add_task(what, total=total)
        self._live.update(self._tasks[what], completed=done)

    def close(self) -> None:
        """Take the bars away."""
        if self._live is not None:
            self._live.stop()
