"""Splits that are too large for the cache: their pictures are decoded when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tdsnn.data._photographs import middle, opened
from tdsnn.data._shards import Encoded, Shards
from tdsnn.errors import IntegrityError
from tdsnn.processes import usable_cores
from tdsnn.progress import Progress

_HINT = "Fetch the file again, or remove it so that another source is used."


class Pictures:
    """Rows of shards as if they were an array uint8 (N, C, H, W): their middle, decoded at each access.

    Args:
        shards: where they lie.
        rows: ascending numbers (N,) of rows.
        shape: (C, H, W) of each as it is given.
        labels: (M,) of all rows of the shards.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        shards: Shards,
        rows: NDArray[np.int64],
        *,
        shape: tuple[int, int, int],
        labels: NDArray[np.int64],
    ) -> None:
        self.shards, self.rows, self.all_labels = shards, rows, labels
        self.shape: tuple[int, int, int, int] = (len(rows), *shape)
        self._latest: tuple[int, list[Encoded]] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,)."""
        return self.all_labels[self.rows]

    @property
    def digest(self) -> str:
        """sha256 of which rows of which shards these are, 64 hex digits."""
        return hashlib.sha256(self.shards.digest.encode() + self.rows.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        """Pixels (n, C, H, W) of a slice or of an array of places, (C, H, W) of one place.

        Raises:
            IntegrityError: a picture cannot be decoded.
        """
        chosen = self.rows[index]
        if not chosen.ndim:
            one: NDArray[np.uint8] = self[np.array([index])][0]
            return one
        found = np.empty((len(chosen), *self.shape[1:]), dtype=np.uint8)

        def decode(place: int, row: Encoded) -> None:
            _, height, width = self.shape[1:]
            found[place] = middle(self._opened(int(chosen[place]), row), height=height, width=width)

        self._each(chosen, decode)
        return found

    def select(self, indices: NDArray[np.int64]) -> Pictures:
        """Some of the rows, not decoded either."""
        return Pictures(self.shards, self.rows[indices], shape=self.shape[1:], labels=self.all_labels)

    def unreadable(self, *, classes: int, progress: Progress) -> dict[int, str]:
        """Place of each picture that cannot be decoded, or has none of so many classes, and why."""
        found: dict[int, str] = {}
        looked_at = 0

        def look(place: int, row: Encoded) -> None:
            nonlocal looked_at
            try:
                check_label(row, name=self._name(int(self.rows[place])), classes=classes)
                self._opened(int(self.rows[place]), row)
            except IntegrityError as error:
                found[place] = error.message
            looked_at += 1
            progress(looked_at, len(self))

        self._each(self.rows, look)
        return dict(sorted(found.items()))

    def require_labels(self, classes: int) -> None:
        """Make sure that each row has one of so many classes.

        Raises:
            IntegrityError: naming the first row that has not.
        """
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= classes))
        if len(wrong):
            row = int(self.rows[wrong[0]])
            check_label(Encoded(None, int(self.all_labels[row])), name=self._name(row), classes=classes)

    def _opened(self, row: int, content: Encoded) -> Any:
        return opened(content, name=self._name(row), channels=self.shape[1])

    def _name(self, row: int) -> str:
        return self.shards.place(row)[1]

    def _each(self, rows: NDArray[np.int64], work: Any) -> None:
        """``work(place, row)`` for each of the rows, a row group at a time, in threads: Pillow lets go of
        Python's lock while it decodes."""
        groups = self.shards.groups_of(rows)
        with ThreadPoolExecutor(usable_cores()) as pool:
            for group in np.unique(groups):
                if self._latest is None or self._latest[0] != group:
                    self._latest = int(group), self.shards.read(int(group))
                start, content = int(self.shards.starts[group]), self._latest[1]
                places = np.flatnonzero(groups == group).tolist()
                list(pool.map(work, places, [content[int(rows[place]) - start] for place in places]))


def check_label(row: Encoded, *, name: str, classes: int) -> int:
    """The class of a row.

    Raises:
        IntegrityError: it is none of so many.
    """
    if row.label is None or not 0 <= row.label < classes:
        raise IntegrityError(f"{name} has label {row.label}, expected 0 to {classes - 1}.")
    return row.label


def open_shards(shards: Shards, *, shape: tuple[int, int, int], size: int) -> Pictures:
    """All pictures of a split.

    Raises:
        IntegrityError: the split has another number of rows.
    """
    if len(shards) != size:
        raise IntegrityError(
            f"{shards.paths[0]} and the shards with it have {len(shards):,} rows, expected {size:,}.",
            hint=_HINT,
        )
    return Pictures(shards, np.arange(len(shards)), shape=shape, labels=shards.labels())


def part_held_out(
    pictures: Pictures, *, size: int, classes: int, progress: Progress
) -> tuple[Pictures, Pictures, tuple[str, ...]]:
    """The pictures to learn from, those held out, and why some of the latter were left out.

    Whole row groups are held out, so that measuring on them does not read all the others; shards are taken to
    be shuffled, as ImageNet's are. Each held-out picture is decoded once here: that one cannot be should be
    known now and not at the end of an epoch.
    """
    starts = pictures.shards.starts
    # RandomState, because numpy promises its stream for ever and default_rng's may change (NEP 19).
    drawn = np.random.RandomState(0).permutation(len(starts) - 1)
    rows = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in drawn])
    held_out, rest = (pictures.select(np.sort(part)) for part in (rows[:size], rows[size:]))
    unreadable = held_out.unreadable(classes=classes, progress=progress)
    sound = np.setdiff1d(np.arange(len(held_out)), list(unreadable))
    if not len(sound):
        raise IntegrityError(next(iter(unreadable.values()), "No picture is held out."), hint=_HINT)
    return rest, held_out.select(sound), tuple(unreadable.values())
