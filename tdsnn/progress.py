"""How work that takes long tells how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "named", "silent"]


class Progress(Protocol):
    """Called again and again while work goes on."""

    def __call__(self, done: int, total: int, what: str = "", /) -> None:
        """Take note.

        Args:
            done, total: of the same unit, e.g. images or bytes.
            what: what is being done now, e.g. the name of a layer or file.
        """


def silent(done: int, total: int, what: str = "", /) -> None:
    """For callers that do not want to know."""


def named(progress: Progress, what: str) -> Progress:
    """Tell ``progress`` what is being done, for work that does not know its own name."""
    return lambda done, total, _="", /: progress(done, total, what)
