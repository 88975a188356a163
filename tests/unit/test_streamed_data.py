"""Splits that are read from shards: what a row may hold, what is refused, and what stays out of memory."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hub_server import Fault, HubServer
from PIL import Image

from tdsnn.data import _base
from tdsnn.data import _reader as reader
from tdsnn.data import _shards as shards_module
from tdsnn.data._base import DATASETS, load_split, verify_split
from tdsnn.data._photographs import middle, opened, random_part
from tdsnn.data._shards import Encoded, Shards
from tdsnn.data._sources import HubRepo
from tdsnn.data._streamed import Pictures
from tdsnn.errors import IntegrityError, MissingError, TdsnnError
from tdsnn.training._draws import LANES, streamed_batches
from tests.shards import GROUP, NAME, Mirror, Row, encoded, mirror, photograph, rows

__all__ = ["mirror"]
SOUND = {
    "grey": encoded(photograph(1, mode="L")),
    "CMYK": encoded(photograph(1, mode="CMYK")),
    "one pixel": encoded(photograph(1, size=(1, 1)), "PNG"),
    "a strip": encoded(photograph(1, size=(1, 3000)), "PNG"),
    "PNG in disguise": encoded(photograph(1), "PNG"),
    "WebP": encoded(photograph(1), "WEBP"),
    "palette": encoded(photograph(1, mode="P"), "PNG"),
    "malformed EXIF": encoded(photograph(1)).replace(
        b"\xff\xd8", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0rubbish!", 1
    ),
}
BROKEN: dict[str, Row] = {
    "truncated": (encoded(photograph(1, size=(200, 200)))[:-3000], 1),
    "zero bytes": (b"", 1),
    "no picture": (None, 1),
    "another format": (encoded(photograph(1), "GIF"), 1),
    "too large": (encoded(Image.new("L", (10_001, 1)), "PNG"), 1),
    "rubbish": (b"rubbish", 1),
    "no label": (encoded(photograph(1)), None),
    "no such class": (encoded(photograph(1)), 10),
}


@pytest.mark.parametrize("kind", SOUND)
def test_pictures_of_every_kind_come_in_one_form(kind: str) -> None:
    for channels in (1, 3):
        picture = opened(Encoded(SOUND[kind], 0), name="Row 0", channels=channels)
        for pixels in (
            middle(picture, height=16, width=16),
            random_part(picture, height=16, width=16, seed=0),
        ):
            assert pixels.shape == (channels, 16, 16)
            assert pixels.dtype == np.uint8
    if kind in ("grey", "CMYK", "PNG in disguise", "palette", "malformed EXIF"):
        assert pixels[:, :5].mean() > pixels[:, -5:].mean() + 50 or kind == "CMYK"


def test_photographs_are_upright() -> None:
    lying = encoded(photograph(1, size=(40, 20)).rotate(90, expand=True), orientation=6)
    picture = opened(Encoded(lying, 0), name="Row 0", channels=3)
    assert picture.size == (40, 20)
    pixels = middle(picture, height=16, width=16)
    assert pixels[:, :6].mean() > pixels[:, 10:].mean() + 100


def test_the_middle_is_seven_eighths_of_the_shorter_side() -> None:
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[4:60, 36:92] = 255
    assert middle(Image.fromarray(pixels), height=56, width=56).min() == 255


def test_crops_belong_to_their_seed_and_cover_8_to_100_percent() -> None:
    across = np.tile(np.arange(256, dtype=np.uint8)[:, None], (256, 1, 3)).reshape(256, 256, 3)
    across[..., 0] = np.arange(256)
    picture = Image.fromarray(across)
    crops = [random_part(picture, height=8, width=8, seed=seed) for seed in range(40)]
    assert np.array_equal(crops[7], random_part(picture, height=8, width=8, seed=7))
    widths = [float(crop[0, 0, -1]) - float(crop[0, 0, 0]) for crop in crops]
    assert min(widths) < 120 < 190 < max(widths)


def test_a_split_is_decoded_as_it_is_used(mirror: Mirror) -> None:
    mirror.write(rows(35))
    split = load_split(NAME, "train")
    assert split.images.shape == (35, 1, 16, 16)
    assert isinstance(split.images, Pictures)
    x, y = split.take(np.array([33, 2, 2]))
    assert (tuple(x.shape), y.tolist()) == ((3, 1, 16, 16), [1, 0, 0])
    assert x[0, :, :8].mean() > x[0, :, 8:].mean() + 0.5
    assert np.array_equal(split.images[33], split.images[32:34][1])
    part = split.select(np.array([3, 30]), name="two rows")
    assert np.array_equal(part.images[np.arange(2)], split.images[np.array([3, 30])])
    assert part.labels.tolist() == [1, 0]
    assert len({split.digest, part.digest}) == 2
    assert not split.canonical


def test_rows_are_held_out_in_whole_groups_and_those_that_are_broken_are_left_out(mirror: Mirror) -> None:
    content = rows(60)
    mirror.write(content)
    rest, held_out = mirror.training()
    assert isinstance(rest.images, Pictures)
    assert isinstance(held_out.images, Pictures)
    assert sorted([*rest.images.rows, *held_out.images.rows]) == list(range(60))
    assert len(np.unique(held_out.images.rows // GROUP)) == 2
    assert held_out.left_out == ()
    worst = int(held_out.images.rows[4])
    content[worst] = BROKEN["truncated"]
    mirror.write(content)
    again, fewer = mirror.training()
    assert isinstance(fewer.images, Pictures)
    assert set(held_out.images.rows) - set(fewer.images.rows) == {worst}
    assert len(again.labels) == 50
    assert len(fewer.left_out) == 1
    assert f"Row {worst % 20} of " in fewer.left_out[0]
    assert again.digest != rest.digest, "other files"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_row_is_replaced_and_told(mirror: Mirror, kind: str) -> None:
    content = rows(20)
    content[3] = BROKEN[kind]
    mirror.write(content)
    pictures = load_split(NAME, "train").images
    assert isinstance(pictures, Pictures)
    plan = [np.array([1, 3, 5]), np.array([0, 2, 4])]
    first, second = reader.read(pictures.shards, plan, shape=(1, 16, 16), classes=10, seed=None, workers=0)
    assert [one.row for one in first.broken] == [3]
    assert first.broken[0].reason.startswith("Row 3 of ")
    assert np.array_equal(first.images[1], first.images[0])
    assert first.labels.tolist() == [1, 1, 1]
    assert second.broken == []
    with pytest.raises(IntegrityError, match="None of the 1 pictures of a batch can be used: Row 3 of"):
        list(reader.read(pictures.shards, [np.array([3])], shape=(1, 16, 16), classes=10, seed=0, workers=0))


def test_workers_give_what_one_process_gives(mirror: Mirror) -> None:
    content = rows(40)
    content[7] = BROKEN["zero bytes"]
    mirror.write(content)
    pictures = load_split(NAME, "train").images
    assert isinstance(pictures, Pictures)
    plan = np.random.default_rng(0).permutation(40).reshape(10, 4)
    alone, shared = (
        list(reader.read(pictures.shards, list(plan), shape=(3, 16, 16), classes=10, seed=1, workers=count))
        for count in (0, 2)
    )
    assert len(alone) == len(shared) == 10
    for one, other in zip(alone, shared, strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.rows, other.rows)
        assert one.broken == other.broken


def test_workers_leave_signals_to_the_training_and_their_end_is_one_sentence(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_late() -> None:
        time.sleep(torch.utils.data.get_worker_info().id)

    # The first batch is there before the second worker knows what to ignore.
    monkeypatch.setattr(reader, "give_back_freed_memory", begin_late)
    mirror.write(rows(120))
    pictures = load_split(NAME, "train").images
    assert isinstance(pictures, Pictures)
    plan = list(np.arange(120).reshape(30, 4))
    coming = reader.read(pictures.shards, plan, shape=(1, 16, 16), classes=10, seed=None, workers=2)
    next(coming)
    for number, worker in itertools.product(
        (signal.SIGINT, signal.SIGTERM), multiprocessing.active_children()
    ):
        assert worker.pid is not None
        os.kill(worker.pid, number)
    assert [next(coming).rows.tolist() for _ in range(12)] == [batch.tolist() for batch in plan[1:13]]
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(
        TdsnnError, match="A process that decodes pictures ended: DataLoader worker"
    ) as caught:
        list(coming)
    assert "shared memory" in caught.value.hint


@pytest.mark.parametrize("processes", [1, 2, 4, 3])
def test_every_row_once_an_epoch_and_processes_read_groups_of_their_own(processes: int) -> None:
    groups = [4] * 600 + [7, 13]
    size = 16 * processes if processes == 3 else 32
    plan = streamed_batches(0, 1, groups=groups, batch_size=size, processes=processes)
    drawn = np.stack(plan)
    assert drawn.shape == (sum(groups) // size, size)
    assert len(np.unique(drawn)) == drawn.size
    starts = np.cumsum([0, *groups])
    read = [
        set(np.searchsorted(starts, drawn[:, rank::processes].ravel(), side="right"))
        for rank in range(processes)
    ]
    shared = [len(one & other) for one, other in itertools.combinations(read, 2)]
    assert sum(shared) < max(LANES, processes), "but for those on a border of lanes"
    if processes < 3:
        other = streamed_batches(0, 1, groups=groups, batch_size=size, processes=4)
        assert np.array_equal(drawn, np.stack(other)), "batches do not depend on who shares them"
    assert not np.array_equal(
        drawn, np.stack(streamed_batches(0, 2, groups=groups, batch_size=size, processes=1))
    )


def test_memory_holds_a_buffer_and_each_group_is_read_once(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600 rows in 120 groups, of which 64 rows are shuffled: never many more are in memory."""
    monkeypatch.setattr("tdsnn.training._draws.SHUFFLED_ROWS", 64)
    one = rows(1)[0]
    mirror.write([one] * 600)
    shards = load_split(NAME, "train").images.shards  # type: ignore[attr-defined]
    reads: Counter[int] = Counter()
    plain = Shards.read

    def counted(self: Shards, group: int) -> list[Encoded]:
        reads[group] += 1
        return plain(self, group)

    monkeypatch.setattr(Shards, "read", counted)
    plan = [
        batch.numpy()
        for batch in streamed_batches(0, 0, groups=np.diff(shards.starts).tolist(), batch_size=8, processes=1)
    ]
    given, most = 0, 0
    for batch in reader.encoded(shards, plan):
        given += len(batch)
        most = max(most, GROUP * sum(reads.values()) - given)
    assert given == 600
    assert set(reads.values()) == {1}
    assert most <= 64 + 2 * 8 * GROUP


def test_shuffling_mixes_the_shards() -> None:
    plan = streamed_batches(0, 0, groups=[100] * 400, batch_size=64, processes=1)
    sources = [len(np.unique(batch.numpy() // 100)) for batch in plan]
    assert np.mean(sources) > 25, "of 64 images"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is not a readable Parquet file"),
        (lambda path: path.write_bytes(b""), "is not a readable Parquet file"),
        (lambda path: path.unlink(), "is not on this machine"),
    ],
)
def test_a_damaged_shard_is_named(mirror: Mirror, damage: object, sentence: str) -> None:
    mirror.write(rows(30))
    path = sorted((mirror.folder / "data").glob("train-*"))[1]
    damage(path)  # type: ignore[operator]
    with pytest.raises((IntegrityError, MissingError), match=sentence) as caught:
        load_split(NAME, "train")
    assert path.name in caught.value.message
    assert caught.value.hint


def test_a_shard_that_is_damaged_inside_is_named(mirror: Mirror) -> None:
    mirror.write(rows(30))
    split = load_split(NAME, "train")
    path = sorted((mirror.folder / "data").glob("train-*"))[1]
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{path.name} is damaged"):
        split.take(np.arange(30))


def test_what_does_not_fit_the_declaration_is_refused(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.write(rows(30), test=[*rows(4), (rows(1)[0][0], 11)])
    with pytest.raises(IntegrityError, match=r"Row 4 of .* has label 11, expected 0 to 9"):
        load_split(NAME, "test")
    info = mirror.dataset.splits["train"]
    mirror.dataset = replace(mirror.dataset, splits={"train": replace(info, size=31)})
    with pytest.raises(IntegrityError, match="have 30 rows, expected 31"):
        load_split(NAME, "train")
    monkeypatch.setattr(shards_module, "LARGEST_GROUP", 100)
    with pytest.raises(IntegrityError, match=r"a row group of .* at most 100 are read at once") as caught:
        load_split(NAME, "train")
    assert "row_group_size=100" in caught.value.hint


def test_a_test_image_that_cannot_be_decoded_is_an_error(mirror: Mirror) -> None:
    mirror.write(rows(30), test=[*rows(4), BROKEN["truncated"]])
    split = load_split(NAME, "test")
    split.take(np.arange(4))
    with pytest.raises(
        IntegrityError, match=r"Row 4 of .*validation-00000-of-00001.parquet cannot be decoded"
    ):
        split.take(np.arange(5))


@pytest.mark.usefixtures("cache")
def test_shards_are_compared_with_what_the_hub_says(mirror: Mirror, hub_server: HubServer) -> None:
    mirror.write(rows(30))
    files = {f"data/{path.name}": path.read_bytes() for path in (mirror.folder / "data").iterdir()}
    hub_server.add("owner/tiny", files, kind="dataset")
    layout = mirror.dataset.sources[0].layout  # type: ignore[attr-defined]
    mirror.dataset = replace(
        mirror.dataset, sources=(*mirror.dataset.sources, HubRepo(repo="owner/tiny", layout=layout))
    )
    assert verify_split(NAME, "train").pinned
    write = sorted((mirror.folder / "data").glob("train-*"))[2]
    for path in (mirror.folder / "data").iterdir():
        path.unlink()
    fetched = load_split(NAME, "train")
    assert "hub" in fetched.origin
    assert np.array_equal(fetched.labels, np.arange(30) % 2)
    mirror.write([*rows(29), rows(2)[1]])
    with pytest.raises(IntegrityError, match=f"{write.name} has sha256 .*, but owner/tiny has"):
        verify_split(NAME, "train")


@pytest.mark.usefixtures("cache")
def test_whoever_has_no_access_learns_how_to_get_it(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TDSNN_DATA", raising=False)
    files = {f"data/validation-{number:05d}-of-00014.parquet": b"shard" for number in range(14)}
    hub_server.add("ILSVRC/imagenet-1k", files, kind="dataset")
    hub_server.misbehave(Fault.status(403, error_code="GatedRepo"), on="resolve")
    with pytest.raises(MissingError, match="gives it only to people it has admitted") as caught:
        load_split("imagenet1k", "test")
    assert "accept its terms. Log in with 'hf auth login'" in caught.value.hint


def test_imagenet_is_declared_as_the_hub_has_it() -> None:
    dataset = DATASETS.load("imagenet1k")
    assert dataset.streamed
    assert len(dataset.classes) == 1000
    assert "terms" in dataset.licence
    assert dataset.sources[0].layout.filenames("test")[13] == "data/validation-00013-of-00014.parquet"  # type: ignore[attr-defined]
    assert _base.cached_splits("imagenet1k") == ()
