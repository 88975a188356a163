"""What a dataset is, and how a split of it gets from a source through the cache to memory.

A dataset is one declarative file of this folder: shape, classes, sizes and digests of the splits, and an
ordered list of sources. A split is decoded once, checked against its pinned digest, put into canonical order
(see ``_cache``) and memory-mapped from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from tdsnn.data._sources import HubRepo, RawSplit, Source
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.paths import cache_dir
from tdsnn.progress import Progress, silent
from tdsnn.registry import Registry, suggest
from tdsnn.schema import About

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tdsnn.data._cache import Cached, Rows

_BAD_SOURCE_HINT = "Fetch the file again, or remove it so that another source is used."


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """What a split must look like."""

    size: int
    """Number of samples."""
    digest: str | None
    """Sha256 of the content in canonical order; None: never measured, so content cannot be checked."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Definition of one dataset."""

    title: str
    shape: tuple[int, int, int]
    """(C, H, W) of every image."""
    classes: tuple[str, ...]
    splits: Mapping[str, SplitInfo]
    task: str = "classification"
    """What a network learns here, a name of ``tdsnn.tasks``."""
    held_out: SplitInfo | None = None
    """The training images that no network learns from, see :func:`load_training`; None: it has none."""
    sources: tuple[Source, ...]
    """In the order they are asked; the network last, so that a machine without it answers at once."""
    licence: str
    citation: str

    @property
    def about(self) -> About:
        """What is said about it in texts."""
        repos = (source.repo for source in self.sources if isinstance(source, HubRepo))
        return About(repo=next(repos, None), title=self.title, shape=self.shape)


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split, ready to use, rows in canonical order: the first n are the same on every machine.

    The arrays are read-only and mapped from disk; index with an array, or copy, before ``torch.from_numpy``.
    """

    images: NDArray[np.uint8]
    """(N, C, H, W), 0..255."""
    labels: NDArray[np.int64]
    """(N,), index into ``classes``."""
    classes: tuple[str, ...]
    digest: str
    """Sha256 of the content, 64 hex digits."""
    pinned: bool
    """Whether the digest was checked against one pinned in the dataset's file."""
    origin: str
    """File or package the samples were first read from."""
    task: str = "classification"
    """What a network learns here, a name of ``tdsnn.tasks``."""
    canonical: bool = True
    """Whether the rows are in canonical order; arrays of one's own keep theirs."""
    places: NDArray[np.int64] | None = None
    """(N,) where each row was in the split that these were selected from; None of a whole split."""
    rows: Rows | None = None
    """What the rows must be, of a split that was stored before; None of one that was just decoded."""

    def take(self, indices: slice | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), float in [0, 1], and classes (N,), int64, copied from disk.

        Raises:
            IntegrityError: a row is not what was decoded.
        """
        import torch

        images, labels = self._read(indices)
        return torch.from_numpy(images).float().div_(255), torch.from_numpy(labels)

    def targets(self, indices: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes (N,) of rows, checked as by :meth:`take`."""
        return self._read(indices)[1]

    def _read(self, indices: slice | NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Copies of rows, which were compared with what they must be."""
        import numpy as np

        images, labels = np.array(self.images[indices]), np.array(self.labels[indices])
        if self.rows is not None:
            self.rows.check(images, labels, np.arange(len(self.labels))[indices])
        return images, labels

    def select(self, indices: NDArray[np.int64], *, name: str) -> Split:
        """Rows in ascending order as a split in memory; ``name`` says in ``origin`` what they are."""
        from tdsnn.data import _cache

        images, labels = self._read(indices)
        digest = self.rows.digest(indices) if self.rows else _cache.canonical_order(images, labels)[1]
        origin = f"{name} of {self.origin}"
        return replace(
            self, images=images, labels=labels, digest=digest, origin=origin, places=indices, rows=None
        )


DATASETS: Registry[Dataset] = Registry(kind="dataset", package="tdsnn.data", command="tdsnn-zoo data list")


def load_split(name: str, split: str, *, progress: Progress = silent) -> Split:
    """Open a split, decoding it into the cache first if it is not there or damaged.

    Args:
        name: a name of ``DATASETS``.
        split: one of the dataset's splits, usually ``train`` or ``test``.
        progress: called while samples are decoded.

    Raises:
        UsageError: unknown dataset or split.
        MissingError: no source has the split; lists each and why.
        IntegrityError: a source has other content than the pinned digest promises.
        TdsnnError: the cache cannot be written.
    """
    return _as_split(name, split, _open(name, split, progress=progress, full=False))


def load_training(name: str, *, progress: Progress = silent) -> tuple[Split, Split]:
    """The training images in two parts: those to learn from, and those held out for every choice.

    Rows are drawn by numpy's frozen MT19937 stream under seed 0, from the canonical order, so they are the
    same images on every machine; the digest of the held-out ones is pinned.

    Raises:
        UsageError: the dataset has no held-out images.
        MissingError, IntegrityError: as :func:`load_split`; also for held-out rows of another content.
    """
    import numpy as np

    info = DATASETS.load(name).held_out
    if info is None:
        raise UsageError(
            f"{name} holds no training images out, so nothing can be trained on it.",
            hint="Choose another dataset: tdsnn-zoo data list",
        )
    train = load_split(name, "train", progress=progress)
    # RandomState, because numpy promises its stream for ever and default_rng's may change (NEP 19).
    drawn = np.random.RandomState(0).permutation(len(train.labels))
    held_out = train.select(np.sort(drawn[: info.size]), name="the held-out part")
    if info.digest is not None and held_out.digest != info.digest:
        raise IntegrityError(
            f"The held-out images of {name} have content sha256 {held_out.digest}, expected {info.digest}.",
            hint=f"Decode the training images again: tdsnn-zoo data fetch {quote(name)}",
        )
    return train.select(np.sort(drawn[info.size :]), name="the rest"), held_out


def fetch_split(name: str, split: str, *, progress: Progress = silent) -> Split:
    """Like ``load_split``, but read every cached sample too and decode again if one is not as recorded."""
    return _as_split(name, split, _open(name, split, progress=progress, full=True))


def verify_split(name: str, split: str, *, progress: Progress = silent) -> Split:
    """Open a split as ``load_split`` does, then read every sample and check content and order.

    Damage found in the samples is reported, not repaired; ``fetch_split`` repairs it.

    Raises:
        IntegrityError: naming the cached file, the expected and the found digest.
    """
    from tdsnn.data import _cache

    cached = _open(name, split, progress=progress, full=False)
    try:
        _cache.check(cached)
    except IntegrityError as error:
        raise IntegrityError(
            error.message, hint=f"Decode it again: tdsnn-zoo data fetch {quote(name)}"
        ) from error
    return _as_split(name, split, cached)


def cached_splits(name: str) -> tuple[str, ...]:
    """Splits of the dataset that were decoded on this machine; opens nothing."""
    splits = DATASETS.load(name).splits.items()
    return tuple(
        split
        for split, info in splits
        if any(_folder(name).glob(f"{split}-{(info.digest or '*')[:12]}.json"))
    )


def _find(name: str, split: str) -> tuple[Dataset, SplitInfo]:
    dataset = DATASETS.load(name)
    if split not in dataset.splits:
        raise suggest(split, dataset.splits, kind=f"split of {name}", command="tdsnn-zoo data list")
    return dataset, dataset.splits[split]


def _folder(name: str) -> Path:
    return cache_dir() / "data" / name


def _as_split(name: str, split: str, cached: Cached) -> Split:
    dataset, info = _find(name, split)
    return Split(
        images=cached.images,
        labels=cached.labels,
        classes=dataset.classes,
        digest=cached.record.digest,
        pinned=info.digest is not None,
        origin=cached.record.origin,
        task=dataset.task,
        rows=cached.rows,
    )


def _open(name: str, split: str, *, progress: Progress, full: bool) -> Cached:
    """The cached split, built first if it is missing or damaged; ``full`` looks at every sample."""
    from tdsnn.data import _cache

    _, info = _find(name, split)
    try:
        cached = _cache.read(_folder(name), split, digest=info.digest)
        if full:
            _cache.check(cached)
    except (MissingError, IntegrityError) as error:
        return _build(name, split, progress=progress, tried=[f"cache: {error.message}"])
    return cached


def _build(name: str, split: str, *, progress: Progress, tried: list[str]) -> Cached:
    """Read the split from the first source that has it, check it, store it and open what was stored."""
    from tdsnn.data import _cache

    dataset, info = _find(name, split)
    raw = _read_first(name, split, progress=progress, tried=tried)
    _check_form(dataset, info, raw)
    order, digest = _cache.canonical_order(raw.images, raw.labels)
    if info.digest is not None and digest != info.digest:
        raise IntegrityError(
            f"{raw.origin} has content sha256 {digest}, but {name}'s split '{split}' has {info.digest}.",
            hint=_BAD_SOURCE_HINT,
        )
    images, labels = raw.images[order], raw.labels[order]
    _cache.write(_folder(name), split, images=images, labels=labels, digest=digest, origin=raw.origin)
    return _cache.read(_folder(name), split, digest=digest)


def _read_first(name: str, split: str, *, progress: Progress, tried: list[str]) -> RawSplit:
    dataset = DATASETS.load(name)
    hints = []
    for source in dataset.sources:
        try:
            return source.read(split, shape=dataset.shape, progress=progress)
        except MissingError as error:
            tried.append(f"{source.describe(split)}: {error.message}")
            hints.append(error.hint)
    reasons = "".join(f"\n  - {reason}" for reason in tried)
    raise MissingError(
        f"Split '{split}' of {name} is not on this machine and no source has it:{reasons}",
        hint="One of these helps:" + "".join(f"\n  - {hint}" for hint in hints if hint),
    )


def _check_form(dataset: Dataset, info: SplitInfo, raw: RawSplit) -> None:
    expected = (info.size, *dataset.shape)
    if raw.images.shape != expected or raw.labels.shape != expected[:1]:
        raise IntegrityError(
            f"{raw.origin} has images of shape {raw.images.shape}, expected {expected}.",
            hint=_BAD_SOURCE_HINT,
        )
    if raw.labels.min() < 0 or raw.labels.max() >= len(dataset.classes):
        found = f"{raw.labels.min()} to {raw.labels.max()}"
        raise IntegrityError(
            f"{raw.origin} has labels {found}, expected 0 to {len(dataset.classes) - 1}.",
            hint=_BAD_SOURCE_HINT,
        )
