"""Data as Markdown: nothing that a manifest or a document holds may act as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NOTHING = "-"
"""Stands in a cell for what does not exist."""

# An underscore inside a word, as in fashion_mnist, is no emphasis and stays readable.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)")
_LINE_START = re.compile(r"^(?:[-+=#]|\d+(?=[.)](?:\s|$)))")


def text(value: object) -> str:
    """``value`` as plain words: characters that mean something in Markdown are escaped, lines are kept."""
    return "\n".join(_line(line.strip()) for line in str(value).strip().splitlines())


def words(value: object) -> str:
    """As :func:`text`, on one line, for a sentence or a cell."""
    return text(" ".join(str(value).split()))


def code(value: object) -> str:
    """``value`` as a code span on one line, which also holds inside a table."""
    words = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    pad = " " if len(fence) > 1 or not words else ""
    return f"{fence}{pad}{words}{pad}{fence}".replace("|", r"\|")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table of Markdown cells, the columns padded to one width.

    Args:
        left: how many columns are left-aligned; the others are right-aligned.
    """
    widths = [max(3, *map(len, column)) for column in zip(columns, *rows, strict=True)]
    rule = [
        f"{'-' * width}" if place < left else f"{'-' * (width - 1)}:" for place, width in enumerate(widths)
    ]
    lines = []
    for cells in (columns, rule, *rows):
        padded = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def interval(value: float, bounds: Sequence[float], form: str) -> str:
    """A figure with its interval, e.g. ``92.13 [91.59, 92.64]``.

    Args:
        form: of each number, e.g. ``z.2f``, in which z makes -0.00 a 0.00.
    """
    low, high = bounds
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def setting(value: Any) -> str:
    """A value of a manifest as it is written there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value)) or NOTHING
    if isinstance(value, float):
        return f"{value:g}"
    return words(value) or NOTHING


def _line(line: str) -> str:
    start = _LINE_START.match(line)
    escaped = _SPECIAL.sub(r"\\\g<0>", line)
    if start is None:
        return escaped
    # "1." would begin a list, and a backslash escapes punctuation only.
    at = start.end() if line[0].isdigit() else 0
    return f"{escaped[:at]}\\{escaped[at:]}"
