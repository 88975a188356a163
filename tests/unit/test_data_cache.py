"""The cache of decoded splits: damage is noticed and repaired, builders at the same time do not collide."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tdsnn.data import _base, _cache
from tdsnn.data._base import Dataset, SplitInfo, cached_splits, fetch_split, load_split, verify_split
from tdsnn.data._sources import RawSplit
from tdsnn.errors import IntegrityError, MissingError, TdsnnError
from tdsnn.progress import Progress

COUNT = 50
RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (COUNT, 3, 4, 4), dtype=np.uint8)
LABELS = RNG.integers(0, 2, COUNT, dtype=np.int64)
_, DIGEST = _cache.canonical_order(IMAGES, LABELS)


@dataclass
class Memory:
    """A source in memory that counts its readers and can be emptied."""

    reads: list[str] = field(default_factory=list)
    present: bool = True

    def describe(self, split: str) -> str:
        return "memory"

    def read(self, split: str, *, shape: tuple[int, int, int], progress: Progress) -> RawSplit:
        if not self.present:
            raise MissingError("it was emptied")
        self.reads.append(split)
        return RawSplit(images=IMAGES, labels=LABELS, origin="memory")


@dataclass
class OneDataset:
    """Stands in for the registry and holds one dataset."""

    dataset: Dataset

    def load(self, name: str) -> Dataset:
        assert name == "tiny"
        return self.dataset


@pytest.fixture
def source(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    """The only source of the only dataset."""
    memory = Memory()
    dataset = Dataset(
        title="Tiny",
        shape=(3, 4, 4),
        classes=("a", "b"),
        splits={"test": SplitInfo(size=COUNT, digest=DIGEST)},
        sources=(memory,),
        licence="none",
        citation="none",
    )
    monkeypatch.setattr(_base, "DATASETS", OneDataset(dataset))
    return memory


@pytest.fixture
def folder(cache: Path) -> Path:
    return cache / "data" / "tiny"


def test_a_split_is_decoded_once_and_mapped_read_only(source: Memory, folder: Path) -> None:
    assert cached_splits("tiny") == ()
    load_split("tiny", "test")
    split = load_split("tiny", "test")
    assert source.reads == ["test"]
    assert cached_splits("tiny") == ("test",)
    assert isinstance(split.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"test-{DIGEST[:12]}.{ending}" for ending in ("images.npy", "json", "labels.npy", "rows.sha256")
    ]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def drop_field(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["shape"]
    path.write_text(json.dumps(content))


def other_digest(path: Path) -> None:
    path.write_text(path.read_text().replace(DIGEST, "0" * 64))


def other_shape(path: Path) -> None:
    content = json.loads(path.read_text())
    content["shape"] = [COUNT, 3, 2, 8]
    path.write_text(json.dumps(content))


def other_type(path: Path) -> None:
    np.save(path, np.load(path).view(np.int8))


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("images.npy", truncate),
        ("labels.npy", truncate),
        ("images.npy", Path.unlink),
        ("images.npy", other_type),
        ("rows.sha256", truncate),
        ("rows.sha256", flip),
        ("json", truncate),
        ("json", drop_field),
        ("json", other_digest),
        ("json", other_shape),
        ("json", lambda path: path.write_text("[]")),
        ("json", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
)
def test_damage_is_noticed_and_repaired_from_the_source(
    source: Memory, folder: Path, ending: str, damage: Callable[[Path], object]
) -> None:
    before = np.array(load_split("tiny", "test").images)
    damage(folder / f"test-{DIGEST[:12]}.{ending}")
    assert np.array_equal(load_split("tiny", "test").images, before)
    assert source.reads == ["test", "test"]
    assert np.array_equal(verify_split("tiny", "test").images, before)


def test_damage_without_a_source_says_what_is_wrong_with_the_cache(source: Memory, folder: Path) -> None:
    load_split("tiny", "test")
    truncate(folder / f"test-{DIGEST[:12]}.images.npy")
    source.present = False
    with pytest.raises(MissingError, match=r"images\.npy has \d+ bytes, expected \d+"):
        load_split("tiny", "test")


def test_a_flipped_bit_is_found_by_verify_and_repaired_by_fetch(source: Memory, folder: Path) -> None:
    load_split("tiny", "test")
    path = folder / f"test-{DIGEST[:12]}.images.npy"
    flip(path)
    with pytest.raises(IntegrityError) as caught:
        verify_split("tiny", "test")
    assert str(path) in caught.value.message
    assert DIGEST in caught.value.message
    assert caught.value.hint == "Decode it again: tdsnn-zoo data fetch tiny"
    fetch_split("tiny", "test")
    verify_split("tiny", "test")
    assert source.reads == ["test", "test"]


@pytest.mark.parametrize(("ending", "place"), [("labels.npy", -1), ("labels.npy", -8), ("images.npy", -1)])
def test_altered_rows_are_never_used(source: Memory, folder: Path, ending: str, place: int) -> None:
    load_split("tiny", "test")
    flip(folder / f"test-{DIGEST[:12]}.{ending}", place)
    split = load_split("tiny", "test")
    images, labels = split.take(slice(COUNT - 1))
    assert np.array_equal(labels, split.labels[: COUNT - 1])
    assert len(images) == COUNT - 1, "other rows can be used: n images cost n images"
    last = np.array([3, COUNT - 1])
    for use in (split.take, split.targets, lambda rows: split.select(rows, name="some")):
        with pytest.raises(
            IntegrityError, match=f"1 of the 2 rows that are used, the first row {COUNT - 1}"
        ) as caught:
            use(last)
        assert caught.value.hint == "Decode it again: tdsnn-zoo data fetch tiny"
    fetch_split("tiny", "test")
    load_split("tiny", "test").take(last)


def test_a_row_is_hashed_once(source: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_split("tiny", "test")
    split, hashed = load_split("tiny", "test"), []
    digests = _cache.row_digests
    monkeypatch.setattr(
        _cache, "row_digests", lambda images, labels: (hashed.append(len(images)), digests(images, labels))[1]
    )
    for _ in range(2):
        split.take(slice(10))
    split.take(slice(5, 15))
    assert sum(hashed) == 15


def test_a_part_has_the_digest_of_its_content(source: Memory, folder: Path) -> None:
    decoded, mapped = load_split("tiny", "test"), load_split("tiny", "test")
    rows = np.array([1, 4, 9, 40])
    parts = [split.select(rows, name="some") for split in (decoded, mapped)]
    digest = _cache.canonical_order(parts[0].images, parts[0].labels)[1]
    assert [part.digest for part in parts] == [digest, digest]


def test_a_split_of_before_rows_had_digests_is_opened_and_checked(source: Memory, folder: Path) -> None:
    before = np.array(load_split("tiny", "test").images)
    (folder / f"test-{DIGEST[:12]}.rows.sha256").unlink()
    assert np.array_equal(load_split("tiny", "test").take(slice(COUNT))[0] * 255, before)
    assert source.reads == ["test"]
    assert (folder / f"test-{DIGEST[:12]}.rows.sha256").stat().st_size == 32 * COUNT


def swap_first_two(array: NDArray[np.uint8] | NDArray[np.int64]) -> NDArray[np.uint8] | NDArray[np.int64]:
    return array[[1, 0, *range(2, COUNT)]]


def test_rows_out_of_order_are_found_by_verify(source: Memory, folder: Path) -> None:
    load_split("tiny", "test")
    for ending in ("images.npy", "labels.npy"):
        path = folder / f"test-{DIGEST[:12]}.{ending}"
        np.save(path, swap_first_two(np.load(path)))
    with pytest.raises(IntegrityError, match="out of order"):
        verify_split("tiny", "test")


def test_eight_builders_at_once_agree(source: Memory, folder: Path) -> None:
    start = threading.Barrier(8)

    def build(_: int) -> NDArray[np.uint8]:
        start.wait()
        return np.array(load_split("tiny", "test").images)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(build, range(8)))
    assert all(np.array_equal(result, results[0]) for result in results)
    assert len(list(folder.iterdir())) == 4
    verify_split("tiny", "test")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to grow a file beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_a_clear_error_and_leaves_nothing(source: Memory, folder: Path) -> None:
    with largest_file(1000), pytest.raises(TdsnnError, match="could not be written") as caught:
        load_split("tiny", "test")
    assert "Free 1 MB" in caught.value.hint
    assert "TDSNN_CACHE" in caught.value.hint
    assert not folder.exists()
    load_split("tiny", "test")
    assert source.reads == ["test", "test"]


def test_a_cache_that_is_a_file_is_a_clear_error(source: Memory, cache: Path) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    cache.write_text("in the way")
    with pytest.raises(TdsnnError, match="could not be written"):
        load_split("tiny", "test")
