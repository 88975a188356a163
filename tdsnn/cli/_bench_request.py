"""The bench command as it was given, on its way to a benchmark."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tdsnn.benchmark.api import Benchmark, prepare
from tdsnn.cli import _output, _progress
from tdsnn.errors import Interrupted
from tdsnn.progress import Progress

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command as it was given: the arguments of :func:`tdsnn.benchmark.api.prepare`."""

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    eps: tuple[str, ...]
    metrics: tuple[str, ...]
    data: str | None
    suite: str | None
    n: int | None
    selection: str
    device: str
    seed: int | None
    batch_size: int | None
    steps: int | None
    out: Path | None

    def stronger(self) -> str:
        """What to type for a number that somebody tried hard to lower."""
        line = ["tdsnn-zoo", "bench", *self.models, *(["--data", self.data] if self.data else [])]
        return shlex.join([*line, "--suite", "standard-v1"])

    def command_line(self, shown: Sequence[str]) -> str:
        """What to type to go on. Finished batches are kept, so never with ``--fresh``.

        Args:
            shown: what is typed about how the result is shown.
        """
        line = ["tdsnn-zoo", "bench", *self.models]
        for name in self.attacks:
            line += ["--attack", name]
        for value in self.eps:
            line += ["--eps", value]
        for name in self.metrics:
            line += ["--metric", name]
        options = {
            "--data": self.data,
            "--suite": self.suite,
            "--n": self.n,
            "--selection": None if self.selection == "first" else self.selection,
            "--device": self.device,
            "--seed": self.seed,
            "--batch-size": self.batch_size,
            "--steps": self.steps,
            "--out": self.out,
        }
        return shlex.join([*line, *words(options), *shown])


def words(options: Mapping[str, object]) -> list[str]:
    """Options that were given, as they are typed."""
    return [word for option, value in options.items() if value is not None for word in (option, str(value))]


def run(
    request: Request, work: Callable[[Benchmark, Progress], Found], *, shown: Sequence[str]
) -> tuple[Found, Path]:
    """What ``work`` makes of the benchmark, and its folder; Ctrl-C says how to go on.

    Args:
        shown: as of :meth:`Request.command_line`.
    """
    stopped = "Stopped before the first cell."
    try:
        benchmark = prepare(**vars(request), note=_output.note)
        stopped = f"Stopped; finished batches are kept in {benchmark.folder}."
        with _progress.bar(unit="images") as progress:
            return work(benchmark, progress), benchmark.folder
    except KeyboardInterrupt as stop:
        raise Interrupted(stopped, hint=f"Go on with: {request.command_line(shown)}") from stop
