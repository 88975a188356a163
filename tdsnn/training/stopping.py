"""Signals that end a run: at once where nothing can be lost, otherwise when the step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Slurm sends those of the user before the time of a job is over, as ``sbatch --signal`` says."""


class Stop:
    """Turns these signals into a ``KeyboardInterrupt`` that does not tear a :meth:`whole` block apart."""

    def __init__(self) -> None:
        self._inside = False
        self._asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block; in a thread other than the main one they stay as they are."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            # A job that a script started in the background ignores Ctrl-C, and should go on doing so.
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that ends before the interrupt is raised, however many signals come.

        Raises:
            KeyboardInterrupt: a signal came meanwhile.
        """
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A launcher and the terminal may each send one; a block that hangs can still be killed.
        if self._inside:
            self._asked = True
            return
        raise KeyboardInterrupt
