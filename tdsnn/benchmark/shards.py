"""A part of a benchmark for one of several machines that do not know of each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tdsnn.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of ``count`` parts, ``index`` from 1 on."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every ``count``-th of the items; each is in one part."""
        return items[self.index - 1 :: self.count]


def read_shard(text: str) -> Shard:
    """The part that ``2/4`` means.

    Raises:
        UsageError: it is not of that form, or there is no such part.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return Shard(index=int(found[1]), count=int(found[2]))
    raise UsageError(
        f"'{text}' names no part of a benchmark.", hint="For example --shard 2/4, of 1/4 to 4/4."
    )
