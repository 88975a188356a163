"""Signals that end a run: at once where nothing can be lost, otherwise when the step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tdsnn.processes import ALONE, Team

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Slurm sends those of the user before the time of a job is over, as ``sbatch --signal`` says."""


class Stop:
    """Turns these signals into a ``KeyboardInterrupt`` that does not tear a :meth:`whole` block apart."""

    def __init__(self) -> None:
        self._holds = 0
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
    def whole(self, team: Team = ALONE) -> Iterator[None]:
        """A block that ends before the interrupt is raised, however many signals come.

        Args:
            team: processes that go through such blocks together. A signal to one of them ends all after the
                same block, if each is :meth:`held` between them.

        Raises:
            KeyboardInterrupt: a signal came meanwhile.
        """
        with self.held():
            yield
            self._end_if(team.any(self._asked))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Between :meth:`whole` blocks inside this one a signal waits for the end of the next of them.

        Raises:
            KeyboardInterrupt: a signal came after the last of them.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        self._end_if(self._asked and not self._holds)

    def _end_if(self, asked: bool) -> None:
        if asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A launcher and the terminal may each send one; a block that hangs can still be killed.
        if self._holds:
            self._asked = True
            return
        raise KeyboardInterrupt
