"""Text from elsewhere, for people's eyes."""

from __future__ import annotations

import unicodedata

_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """``text`` with a U+FFFD for each character that would steer a terminal or reorder what is read.

    These are the control characters, but for tab and the end of a line, and those that turn the direction of
    writing (https://trojansource.codes).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    return letter in _BIDIRECTIONAL or (unicodedata.category(letter) == "Cc" and letter not in "\t\n")
