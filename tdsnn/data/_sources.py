"""Where a dataset can come from. Each source answers at once whether it has a split, or says why not.

A source raises ``MissingError`` when it does not have the split, so that the next one is asked, and
``IntegrityError`` when it has a file that cannot be used, which ends the search: a bad file is never papered
over by another source. numpy and the file readers are imported only when a split is really read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tdsnn.errors import MissingError
from tdsnn.paths import data_dir
from tdsnn.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RawSplit:
    """A split as a source stores it, rows in the source's own order."""

    images: NDArray[np.uint8]
    """(N, C, H, W), 0..255."""
    labels: NDArray[np.int64]
    """(N,), index of the class."""
    origin: str
    """File or package the samples were read from."""


class Source(Protocol):
    """One place that may have a dataset."""

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""

    def check(self, split: str) -> None:
        """Find out, without reading it and without a network, whether the split is on this machine.

        Raises:
            MissingError: it is not, and why.
        """

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, images decoded to ``shape`` (C, H, W).

        Raises:
            MissingError: the source does not have the split.
            IntegrityError: the source has a file for it that cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class ParquetLayout:
    """How a Hub dataset repository stores its splits: Parquet files with encoded images in them."""

    config: str
    """Folder of the configuration."""
    image: str
    """Column with the encoded images (a struct with ``bytes``)."""
    label: str
    """Column with the class index."""
    shards: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Split to its name in the repository and the number of its files; its own name and 1 if not there."""

    def filenames(self, split: str) -> tuple[str, ...]:
        """Paths of the split's files inside the repository."""
        stored, count = self.shards.get(split, (split, 1))
        return tuple(f"{self.config}/{stored}-{place:05d}-of-{count:05d}.parquet" for place in range(count))

    def filename(self, split: str) -> str:
        """Path of the only file of a split."""
        (only,) = self.filenames(split)
        return only

    def load(
        self, path: Path, *, shape: tuple[int, int, int], progress: Progress
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Decode one file of this layout to (images, labels)."""
        from tdsnn.data._formats import read_parquet

        return read_parquet(path, image=self.image, label=self.label, shape=shape, progress=progress)


@dataclass(frozen=True, kw_only=True)
class LocalMirror:
    """``$TDSNN_DATA/FOLDER``, laid out like the Hub's dataset repository."""

    folder: str
    layout: ParquetLayout

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""
        return "local mirror"

    def check(self, split: str) -> None:
        """Whether the mirror has the split's file."""
        self.locate(split)

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, from ``$TDSNN_DATA``."""
        (path,) = self.locate(split)
        images, labels = self.layout.load(path, shape=shape, progress=progress)
        return RawSplit(images=images, labels=labels, origin=str(path))

    def locate(self, split: str, *, progress: Progress = silent) -> tuple[Path, ...]:
        """The files of the split below ``$TDSNN_DATA``.

        Raises:
            MissingError: one is not there.
        """
        wanted = [f"{self.folder}/{filename}" for filename in self.layout.filenames(split)]
        root = data_dir()
        if root is None:
            raise MissingError(
                "TDSNN_DATA is not set", hint=f"Set TDSNN_DATA to a folder that has {wanted[0]}"
            )
        paths = tuple(root / name for name in wanted)
        for path in paths:
            if not path.is_file():
                raise MissingError(f"{path} does not exist", hint=f"Put the Hub's file at {path}")
        return paths


@dataclass(frozen=True, kw_only=True)
class HubRepo:
    """A dataset repository of the Hugging Face Hub. The network comes last in a list of sources."""

    repo: str
    layout: ParquetLayout

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""
        return f"Hub dataset {self.repo}"

    def check(self, split: str) -> None:
        """Whether the split's file was fetched, by this project or another program."""
        from tdsnn import hub

        if not all(hub.has_dataset_file(self.repo, name) for name in self.layout.filenames(split)):
            raise MissingError("it is not downloaded")

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, from the Hub or its download cache."""
        (path,) = self.locate(split, progress=progress)
        images, labels = self.layout.load(path, shape=shape, progress=progress)
        return RawSplit(images=images, labels=labels, origin=str(path))

    def locate(self, split: str, *, progress: Progress = silent) -> tuple[Path, ...]:
        """The files of the split, fetched from the Hub first where they are not on this machine.

        Raises:
            MissingError: one is not on this machine and not to be had.
            IntegrityError: one has other content than the Hub promised.
        """
        from tdsnn import hub

        names = self.layout.filenames(split)
        return hub.fetch_dataset_files(self.repo, names, by_size=len(names) > 1, progress=progress)


@dataclass(frozen=True, kw_only=True)
class IdxFolder:
    """Gzipped IDX files (the format of MNIST) that a system package installs."""

    folder: Path
    files: Mapping[str, tuple[str, str]]
    """Split -> (file of the images, file of the labels)."""
    package: str
    """Name of the system package."""

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""
        return f"system package {self.package}"

    def check(self, split: str) -> None:
        """Whether the package's folder has both files of the split."""
        self._paths(split)

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, from the package's folder."""
        images_path, labels_path = self._paths(split)
        from tdsnn.data._formats import read_idx

        images, labels = read_idx(images_path, labels_path, shape=shape)
        progress(len(labels), len(labels))
        return RawSplit(images=images, labels=labels, origin=f"{images_path} with {labels_path.name}")

    def _paths(self, split: str) -> tuple[Path, Path]:
        images, labels = (self.folder / file for file in self.files[split])
        for path in (images, labels):
            if not path.is_file():
                raise MissingError(
                    f"{path} does not exist", hint=f"Debian and Ubuntu: apt-get install {self.package}"
                )
        return images, labels


@dataclass(frozen=True, kw_only=True)
class PythonPackage:
    """A dataset inside an installed Python package."""

    package: str
    """Name to install it by."""
    module: str
    """Top-level module that must be importable."""
    reader: Callable[[str], tuple[NDArray[Any], NDArray[Any]]]
    """Split -> (images (N, C, H, W) uint8, labels (N,))."""

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""
        return f"Python package {self.package}"

    def check(self, split: str) -> None:
        """Whether the package is installed."""
        if importlib.util.find_spec(self.module) is None:
            raise MissingError("it is not installed", hint=f"pip install {self.package}")

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, from the package."""
        self.check(split)
        images, labels = self.reader(split)
        progress(len(labels), len(labels))
        return RawSplit(images=images, labels=labels.astype("int64"), origin=self.package)


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Encoded images below ``$TDSNN_DATA/FOLDER``, each named ``CLASS-NUMBER.SUFFIX``."""

    folder: str
    classes: tuple[str, ...]
    suffix: str
    """With the dot, e.g. ``.jpg``."""
    origin: str
    """Address that the user gets the images from."""

    def describe(self, split: str) -> str:
        """Short name of the place, for messages."""
        return "folder of images"

    def check(self, split: str) -> None:
        """Whether the folder has any of the images."""
        self._paths()

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        """All samples of the split, reduced to ``shape``."""
        from tdsnn.data._formats import read_images

        paths = self._paths()
        images, labels = read_images(paths, classes=self.classes, shape=shape, progress=progress)
        return RawSplit(images=images, labels=labels, origin=str(paths[0].parent))

    def _paths(self) -> list[Path]:
        remedy = (
            f"Get the images from {self.origin} and set TDSNN_DATA to the folder that holds {self.folder}/"
        )
        root = data_dir()
        if root is None:
            raise MissingError("TDSNN_DATA is not set", hint=remedy)
        folder = root / self.folder
        known = {name.casefold() for name in self.classes}
        found = [
            path
            for path in sorted(folder.rglob(f"*{self.suffix}"))
            if path.stem.rpartition("-")[0].casefold() in known
        ]
        if not found:
            raise MissingError(f"{folder} has no images called {self.classes[0]}-1{self.suffix}", hint=remedy)
        return found
