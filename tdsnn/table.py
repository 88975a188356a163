"""Tables of results as plain data, and the wording of the numbers in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = [
    *("CLEAN", "FIRST_IMAGES", "MARK", "SIGNIFICANT", "WORST_CASE"),
    *("Table", "images_of", "interval", "p_value", "p_values", "short", "titled"),
]

CLEAN = "clean"
"""Stands for an attack in the cell without one."""
FIRST_IMAGES = "first n images of the split"
"""The selection of images that a result is about, if nobody asked for another."""
MARK = "†"
"""Behind every accuracy of a model that failed a test for masked gradients."""
SIGNIFICANT = 0.05
"""A difference is shown if its p-value, adjusted over the table, is below."""
WORST_CASE = "worst case"
"""Stands for an attack in the cells of what is left after all of them."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; ``str`` is its text, the first column to the left and the others to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        rule = ["-" * width for width in widths]
        lines = [self.title]
        for row in (self.columns, rule, *self.rows):
            cells = [
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, self.caption] if self.caption else lines)


class Spanned(Protocol):
    """A value with the ends of its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def interval(figure: Spanned, sign: str = "", *, digits: int = 1) -> str:
    """A figure with its interval; ``sign`` is ``+`` for a difference."""
    form = f"{sign}.{digits}f"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"


def p_value(p: float, adjusted: float = 1.0) -> str:
    """The p-value of one row, of the smallest ones only how small, with ``*`` if it stands after adjustment.

    A row's interval is not adjusted for the other rows, so neither is the p beside it: the two agree, and the
    same comparison has the same p in every table. What is left after adjustment is marked.

    Args:
        adjusted: the p-value adjusted over all rows of the table.
    """
    return (f"{p:.3f}" if p >= 0.001 else "<0.001") + "*" * (adjusted < SIGNIFICANT)


def p_values(test: str, rows: int) -> str:
    """What :func:`p_value` says in a table with so many rows that were tested, for its caption."""
    return (
        f"p: {test}, of each row alone, as its interval is; *: below {SIGNIFICANT:g} also after Holm's "
        f"adjustment over {rows} comparison{'s' * (rows != 1)}"
    )


def short(name: str) -> str:
    """A model's name in the heading of a column; of ``package.module:function`` without the package."""
    last = name.rstrip("/").rpartition("/")[2]
    return last.rpartition(".")[2] if ":" in last else last.partition(".")[0]


def titled(attack: str, variant: str) -> str:
    """An attack and what differs from its defaults, as one types it."""
    return f"{attack}:{variant}" if variant else attack


def images_of(settings: Mapping[str, Any]) -> str:
    """Which images the numbers of a result are about, in words."""
    if (selection := settings["selection"]) != FIRST_IMAGES:
        return f"{settings['n']:,} test images{selection.removeprefix('n images of the split')}"
    order = " in canonical order" if settings.get("order", "canonical") == "canonical" else ""
    return f"First {settings['n']:,} test images{order}"
