"""Reading photographs from shards: how near it comes to decoding alone, and what it keeps in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from benchmarks.speed._measure import Row, Settings, Target, in_fresh_process, interleave
from benchmarks.speed.memory import peak_resident
from tdsnn.data._photographs import opened, random_part
from tdsnn.data._reader import encoded, read, usable_workers
from tdsnn.data._shards import Encoded, Shards
from tdsnn.training._draws import streamed_batches

_SIZE, _BATCH, _CLASSES = 224, 64, 1000
_IMAGES, _QUICK_IMAGES, _SHARDS, _GROUP = 20_000, 2_000, 10, 100
_TIMED_BATCHES = 30
_MOST_MIB = 512.0
"""What reading may keep, whatever the size of the dataset."""


def run(settings: Settings) -> list[Row]:
    """Decoding and cropping photographs of about 400x360 pixels to 224, read from shards against from memory;
    and how the memory of the process that reads grows over an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        images = _QUICK_IMAGES if settings.quick else _IMAGES
        size = _write_shards(Path(folder), images)
        return [_speed(Path(folder), settings.rounds), _memory(folder, images=images, size=size)]


def _speed(folder: Path, rounds: int) -> Row:
    workers = usable_workers()
    shards = _open(folder)
    rows = shards.read(0)
    count = _TIMED_BATCHES * _BATCH
    plan = _plan(shards, 0)[:_TIMED_BATCHES]
    with get_context("fork").Pool(workers) as pool:

        def alone() -> None:
            pool.map(_decode, [rows[place % len(rows)] for place in range(count)], chunksize=_BATCH)

        def streamed() -> None:
            for _ in read(shards, plan, shape=(3, _SIZE, _SIZE), classes=_CLASSES, seed=0):
                pass

        timings = interleave({"memory": alone, "shards": streamed}, rounds=rounds)
    return Row(
        name=f"streamed photographs, {workers} workers, against decoding alone",
        unit="images/s",
        stock=count / timings.median("memory"),
        ours=count / timings.median("shards"),
        ratio=timings.ratio("memory", "shards"),
        meaning="streamed / decoding alone",
        target=Target(bound="at least", value=0.8),
    )


def _memory(folder: str, *, images: int, size: int) -> Row:
    return Row(
        name=f"memory to read {images:,} photographs, {size / 2**20:,.0f} MiB, in shuffled order",
        unit="MiB",
        ours=in_fresh_process(growth, folder) / 2**20,
        target=Target(bound="at most", value=_MOST_MIB),
    )


def growth(folder: str) -> int:
    """Bytes by which the peak memory of this process grows while it reads an epoch."""
    shards = _open(Path(folder))
    plan = _plan(shards, 0)
    before = peak_resident()
    for _ in encoded(shards, plan):
        pass
    return peak_resident() - before


def _open(folder: Path) -> Shards:
    return Shards(sorted(folder.iterdir()), image="image", label="label")


def _plan(shards: Shards, epoch: int) -> Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    groups = np.diff(shards.starts).tolist()
    batches = streamed_batches(0, epoch, groups=groups, batch_size=_BATCH, processes=1)
    return [batch.numpy() for batch in batches]


def _decode(row: Encoded) -> None:
    random_part(opened(row, name="A row", channels=3), height=_SIZE, width=_SIZE, seed=0)


def _write_shards(folder: Path, images: int) -> int:
    """Made-up photographs in row groups of 100, as the Hub has them; bytes of all files."""
    draws = np.random.default_rng(0)
    some = [_photograph(draws) for _ in range(_GROUP)]
    for shard in range(_SHARDS):
        numbers = range(images // _SHARDS)
        cells = [{"bytes": some[number % _GROUP]} for number in numbers]
        table = pa.table({"image": cells, "label": pa.array([number % _CLASSES for number in numbers])})
        parquet.write_table(
            table, folder / f"train-{shard:05d}.parquet", row_group_size=_GROUP, use_dictionary=False
        )
    return sum(path.stat().st_size for path in folder.iterdir())


def _photograph(draws: np.random.Generator) -> bytes:
    """A JPEG of coarse colours and fine noise, 300 to 520 pixels a side; about 40 kB."""
    height, width = (int(side) for side in draws.integers(300, (420, 520)))
    coarse = Image.fromarray(draws.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = (smooth + draws.integers(-12, 13, (height, width, 1), dtype=np.int16)).clip(0, 255)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
