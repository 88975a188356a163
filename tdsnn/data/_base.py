"""What a dataset is, and how a split of it gets from a source through the cache to memory.

A dataset is one declarative file of this folder: shape, classes, sizes and digests of the splits, and an
ordered list of sources. A split is decoded once, checked against its pinned digest, put into canonical order
(see ``_cache``) and memory-mapped from then on; one that is too large for that is streamed (``_streamed``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, TypeVar

from tdsnn.data._sources import HubRepo, LocalMirror, RawSplit, Source
from tdsnn.data._split import Split
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.paths import cache_dir
from tdsnn.progress import Progress, silent
from tdsnn.registry import Registry, suggest
from tdsnn.schema import About

if TYPE_CHECKING:
    from tdsnn.data._cache import Cached

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "SplitInfo",
    "cached_splits",
    "fetch_split",
    "load_split",
    "load_training",
    "verify_split",
]

_Found = TypeVar("_Found")
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
    streamed: bool = False
    """Whether it is too large for the cache: the sources' files are read at every use, and pictures of any
    size brought to ``shape``. Number of rows and form of the files are checked; a file from the Hub has the
    sha256 that the Hub states, and ``tdsnn-zoo data verify`` compares all files with those."""
    licence: str
    citation: str

    @property
    def about(self) -> About:
        """What is said about it in texts."""
        repos = (source.repo for source in self.sources if isinstance(source, HubRepo))
        return About(repo=next(repos, None), title=self.title, shape=self.shape)


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
    if _find(name, split)[0].streamed:
        return _streamed(name, split, progress=progress)
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
    if DATASETS.load(name).streamed:
        return _parts_streamed(train, info.size, progress=progress)
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
    if _find(name, split)[0].streamed:
        return _streamed(name, split, progress=progress)
    return _as_split(name, split, _open(name, split, progress=progress, full=True))


def verify_split(name: str, split: str, *, progress: Progress = silent) -> Split:
    """Open a split as ``load_split`` does, then read every sample and check content and order.

    Damage found in the samples is reported, not repaired; ``fetch_split`` repairs it.

    Raises:
        IntegrityError: naming the cached file, the expected and the found digest.
    """
    from tdsnn.data import _cache

    if _find(name, split)[0].streamed:
        return _verify_streamed(name, _streamed(name, split, progress=progress), progress=progress)
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
    raw = _first(
        name, split, lambda source: source.read(split, shape=dataset.shape, progress=progress), tried=tried
    )
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


def _streamed(name: str, split: str, *, progress: Progress) -> Split:
    """A split whose pictures are decoded when they are used."""
    from tdsnn.data._shards import Shards
    from tdsnn.data._streamed import open_shards

    dataset, info = _find(name, split)

    def located(source: Source) -> Shards:
        if not isinstance(source, LocalMirror | HubRepo):
            raise MissingError("it has no shards")
        paths = source.locate(split, progress=progress)
        return Shards(paths, image=source.layout.image, label=source.layout.label)

    pictures = open_shards(_first(name, split, located, tried=[]), shape=dataset.shape, size=info.size)
    if split != "train":
        pictures.require_labels(len(dataset.classes))
    return Split(
        images=pictures,
        labels=pictures.labels,
        classes=dataset.classes,
        digest=pictures.digest,
        pinned=False,
        origin=str(pictures.shards.paths[0].parent),
        task=dataset.task,
        canonical=False,
    )


def _parts_streamed(train: Split, size: int, *, progress: Progress) -> tuple[Split, Split]:
    from tdsnn.data._streamed import Pictures, part_held_out

    assert isinstance(train.images, Pictures)
    rest, held_out, left_out = part_held_out(
        train.images, size=size, classes=len(train.classes), progress=progress
    )
    apart = replace(train.streamed(held_out, name="the held-out part"), left_out=left_out)
    return train.streamed(rest, name="the rest"), apart


def _verify_streamed(name: str, split: Split, *, progress: Progress) -> Split:
    """Compare the shards with what the Hub says of them."""
    from tdsnn import hub
    from tdsnn.data._streamed import Pictures
    from tdsnn.files import sha256_of

    assert isinstance(split.images, Pictures)
    repo = DATASETS.load(name).about.repo
    known = {Path(path).name: digest for path, digest in hub.dataset_digests(repo).items()} if repo else {}
    paths = split.images.shards.paths
    for done, path in enumerate(paths, start=1):
        found, expected = sha256_of(path), known.get(path.name)
        if expected is not None and found != expected:
            raise IntegrityError(
                f"{path} has sha256 {found}, but {repo} has {expected}.", hint=_BAD_SOURCE_HINT
            )
        progress(done, len(paths), path.name)
    return replace(split, pinned=all(path.name in known for path in paths))


def _first(name: str, split: str, ask: Callable[[Source], _Found], *, tried: list[str]) -> _Found:
    """What the first source that has the split answers."""
    hints = []
    for source in DATASETS.load(name).sources:
        try:
            return ask(source)
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
