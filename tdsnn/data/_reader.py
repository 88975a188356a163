"""Batches of photographs in a given order: one thread reads them from shards, worker processes decode them.

The order is known beforehand, so where reading stands is the number of batches, and nothing else is state.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tdsnn.data._photographs import middle, opened, random_part
from tdsnn.data._shards import Encoded, Shards
from tdsnn.data._streamed import check_label
from tdsnn.errors import IntegrityError, TdsnnError
from tdsnn.kernels.memory import give_back_freed_memory
from tdsnn.processes import usable_cores

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_MOST_WORKERS = 16
_PREFETCHED = 2
"""Batches for each worker that are decoded ahead."""


class Broken(NamedTuple):
    """A row that could not be used."""

    row: int
    reason: str


class Decoded(NamedTuple):
    """A batch."""

    rows: Tensor
    """(N,)."""
    images: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """int64 (N,)."""
    broken: list[Broken]
    """In their places are others of the batch."""


class _Found(NamedTuple):
    row: int
    name: str
    content: Encoded


def usable_workers() -> int:
    """Processes that decode for each process that trains here; this machine's cores are shared by them."""
    return min(_MOST_WORKERS, max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def read(
    shards: Shards,
    plan: Sequence[NDArray[np.int64]],
    *,
    shape: tuple[int, int, int],
    classes: int,
    seed: int | None,
    workers: int | None = None,
    pinned: bool = False,
) -> Generator[Decoded, None, None]:
    """Decoded batches in the order of a plan.

    Args:
        plan: rows (N,) of each batch; each row is used once.
        shape: (C, H, W) of each picture as it is given.
        classes: how many there are.
        seed: of random crops, which a row has whatever its batch is; None shows the middle of each.
        workers: processes that decode; 0 for this one, :func:`usable_workers` by default.
        pinned: whether to give batches in memory that a GPU can read.

    Raises:
        IntegrityError: a shard is damaged, or a batch has no picture that can be decoded.
        TdsnnError: a worker ended.
    """
    count = usable_workers() if workers is None else workers
    loader = DataLoader(
        _Decoder(shape=shape, classes=classes, seed=seed),
        batch_size=None,
        sampler=_Ahead(shards, plan),
        num_workers=count,
        worker_init_fn=_begin_worker,
        prefetch_factor=_PREFETCHED if count else None,
        pin_memory=pinned,
        # Otherwise it draws from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    try:
        for batch in _begun(loader):
            if len(batch.broken) == len(batch.rows):
                raise IntegrityError(
                    f"None of the {len(batch.rows)} pictures of a batch can be used: {batch.broken[0].reason}"
                )
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TdsnnError(
            f"A process that decodes pictures ended: {str(error).splitlines()[0]}",
            hint="It may have lacked memory, also shared memory (df /dev/shm; docker run --shm-size=8g).",
        ) from error


def _begun(loader: DataLoader[Decoded]) -> Iterator[Decoded]:
    """The loader's batches. Its workers inherit that signals wait, until they know to ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_: int) -> None:
    give_back_freed_memory()
    # The training decides what a signal means; workers end when it does.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class _Ahead:
    """What the rows of a plan hold, batch after batch, read in a thread that is one batch ahead."""

    def __init__(self, shards: Shards, plan: Sequence[NDArray[np.int64]]) -> None:
        self._shards, self._plan = shards, plan

    def __iter__(self) -> Iterator[list[_Found]]:
        batches = encoded(self._shards, self._plan)
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = thread.submit(next, batches, None)
                yield batch

    def __len__(self) -> int:
        return len(self._plan)


def encoded(shards: Shards, plan: Sequence[NDArray[np.int64]]) -> Iterator[list[_Found]]:
    """What the rows of each batch hold. A row group is read when its first row is needed; of it those rows
    are kept that come later, each until it is used."""
    wanted = np.zeros(len(shards), dtype=np.bool_)
    for rows in plan:
        wanted[rows] = True
    kept: dict[int, Encoded] = {}
    for rows in plan:
        for row, group in zip(rows.tolist(), shards.groups_of(rows).tolist(), strict=True):
            if row not in kept:
                first = int(shards.starts[group])
                content = shards.read(group)
                kept |= {first + place: one for place, one in enumerate(content) if wanted[first + place]}
        yield [_Found(row, shards.place(row)[1], kept.pop(row)) for row in rows.tolist()]
        wanted[rows] = False


class _Decoder(Dataset[Decoded]):
    """Turns what rows hold into a batch."""

    def __init__(self, *, shape: tuple[int, int, int], classes: int, seed: int | None) -> None:
        self._shape, self._classes, self._seed = shape, classes, seed

    def __getitem__(self, found: list[_Found]) -> Decoded:
        images = torch.empty((len(found), *self._shape), dtype=torch.uint8)
        labels = torch.empty(len(found), dtype=torch.int64)
        broken, sound = [], []
        for place, one in enumerate(found):
            try:
                labels[place] = check_label(one.content, name=one.name, classes=self._classes)
                images.numpy()[place] = self._pixels(one)
                sound.append(place)
            except IntegrityError as error:
                broken.append((place, Broken(one.row, error.message)))
        for number, (place, _) in enumerate(broken if sound else []):
            # With as many in every batch each image counts alike, and each process has equal shares.
            instead = sound[number % len(sound)]
            images[place], labels[place] = images[instead], labels[instead]
        rows = torch.tensor([one.row for one in found])
        return Decoded(rows, images, labels, [one for _, one in broken])

    def _pixels(self, found: _Found) -> NDArray[np.uint8]:
        channels, height, width = self._shape
        picture = opened(found.content, name=found.name, channels=channels)
        if self._seed is None:
            return middle(picture, height=height, width=width)
        key = hashlib.sha256(f"{self._seed}:crop:{found.row}".encode()).digest()
        return random_part(picture, height=height, width=width, seed=int.from_bytes(key[:7]))
