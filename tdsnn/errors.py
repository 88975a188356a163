"""The exception family. Each class owns its exit code; a message is one sentence."""

from __future__ import annotations


class TdsnnError(Exception):
    """Base of every error that a user can cause or meet.

    Args:
        message: one sentence that names the thing and the reason.
        hint: what to type or do next; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TdsnnError):
    """A name, value, shape or range that cannot be used."""

    exit_code = 2


class IntegrityError(TdsnnError):
    """A file whose content is not what was promised."""

    exit_code = 3


class MissingError(TdsnnError):
    """Something that is not on this machine and could not be fetched."""

    exit_code = 4


class Unreachable(MissingError):
    """Missing because nobody can be asked for it now: no network, or offline mode."""


class GateError(TdsnnError):
    """A check that guards a number refused it."""

    exit_code = 5


class Interrupted(TdsnnError):
    """Ctrl-C, after the state was saved."""

    exit_code = 130
