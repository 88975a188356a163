"""Shards of photographs as the Hub stores them, small and in part broken, for tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tdsnn.data import _base
from tdsnn.data._base import Dataset, SplitInfo
from tdsnn.data._sources import LocalMirror, ParquetLayout
from tdsnn.data._split import Split

NAME, SHARDS, GROUP = "tiny", 3, 5
CLASSES = tuple("0123456789")
Row = tuple[bytes | None, int | None]


def photograph(number: int, *, mode: str = "RGB", size: tuple[int, int] = (24, 20)) -> Image.Image:
    """Brighter in its upper half where the number is odd."""
    draws = np.random.default_rng(number)
    pixels = draws.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    if number % 2:
        pixels[: size[1] // 2] += 190
    return Image.fromarray(pixels).convert(mode)


def encoded(picture: Image.Image, kind: str = "JPEG", *, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, kind, exif=exif)
    return file.getvalue()


def rows(count: int) -> list[Row]:
    """Sound photographs of two classes."""
    return [(encoded(photograph(number)), number % 2) for number in range(count)]


def write_shards(folder: Path, content: Sequence[Row], *, split: str = "train", shards: int = SHARDS) -> None:
    """Deal rows to files in equal parts, in row groups of :data:`GROUP`."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    size = -(-len(content) // shards)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(shards):
        part = content[number * size : (number + 1) * size]
        cells = [None if data is None else {"bytes": data, "path": "x.JPEG"} for data, _ in part]
        labels = pa.array([label for _, label in part], pa.int64())
        table = pa.table({"image": pa.array(cells, kind), "label": labels})
        name = f"{split}-{number:05d}-of-{shards:05d}.parquet"
        parquet.write_table(table, folder / "data" / name, row_group_size=GROUP)


class Mirror:
    """A streamed dataset in ``$TDSNN_DATA``; its rows may be written anew."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = root / NAME
        layout = ParquetLayout(
            config="data",
            image="image",
            label="label",
            shards={"train": ("train", SHARDS), "test": ("validation", 1)},
        )
        self.dataset = Dataset(
            title="Tiny",
            shape=(1, 16, 16),
            classes=CLASSES,
            splits={},
            streamed=True,
            sources=(LocalMirror(folder=NAME, layout=layout),),
            licence="none",
            citation="none",
        )
        monkeypatch.setenv("TDSNN_DATA", str(root))
        monkeypatch.setattr(_base, "DATASETS", self)

    def load(self, name: str) -> Dataset:
        assert name == NAME
        return self.dataset

    def write(self, content: Sequence[Row], *, held_out: int = 10, test: Sequence[Row] = ()) -> None:
        write_shards(self.folder, content)
        write_shards(self.folder, test or content[:GROUP], split="validation", shards=1)
        self.expect(len(content), held_out=held_out, test=len(test) or GROUP)

    def expect(self, count: int, *, held_out: int = 10, test: int = GROUP) -> None:
        """Such shards are there already."""
        sizes = {"train": count, "test": test}
        self.dataset = replace(
            self.dataset,
            splits={split: SplitInfo(size=size, digest=None) for split, size in sizes.items()},
            held_out=SplitInfo(size=held_out, digest=None),
        )

    def training(self) -> tuple[Split, Split]:
        return _base.load_training(NAME)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    return Mirror(tmp_path / "mirror", monkeypatch)
