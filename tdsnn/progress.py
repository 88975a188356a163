"""How work that takes long tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Note", "Progress", "counted", "named", "silent", "unheard"]

Note = Callable[[str], None]
"""Takes a sentence for people about what is going on."""


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


def counted(progress: Progress, total: int) -> Callable[[int, str], None]:
    """Tell ``progress`` of work that says how much was done since it last said so."""
    done = 0

    def add(count: int, what: str) -> None:
        nonlocal done
        done += count
        progress(done, total, what)

    return add


def unheard(text: str, /) -> None:
    """The note of callers that do not want to know."""
