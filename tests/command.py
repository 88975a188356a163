"""The command line as a function, and as a process that imports nothing, for tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

import pytest

from tdsnn.cli.main import main


def run(*arguments: str) -> int:
    """Exit code of ``tdsnn-zoo`` with these arguments."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    code = caught.value.code
    return code if isinstance(code, int) else 0


class Started:
    """``tdsnn-zoo`` in a process to be killed or asked to stop: a copy of this one, with all that is patched.

    A new interpreter takes seconds to import what this one has. Behaves as :class:`subprocess.Popen` does.

    Args:
        prints: files that get standard output and standard error.
    """

    def __init__(self, *arguments: str, prints: tuple[Path, Path]) -> None:
        self._prints = prints
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=_work, args=(arguments, prints))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (path.read_text(encoding="utf-8") for path in self._prints)
        return out, err

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def _work(arguments: tuple[str, ...], prints: tuple[Path, Path]) -> None:
    # As in a new interpreter, whatever the process with the tests was told to ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout, sys.stderr = (_redirected(stream, path) for stream, path in zip((1, 2), prints, strict=True))
    main(list(arguments))


def _redirected(stream: int, path: Path) -> TextIO:
    file = path.open("w", encoding="utf-8")
    os.dup2(file.fileno(), stream)
    return file
