"""Which test images a benchmark is about: the first, drawn ones, or a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import tdsnn
from tdsnn.data._base import Split, load_split
from tdsnn.data._selection import Selection, selected
from tdsnn.errors import UsageError
from tdsnn.table import images_of


def linear(pixels: int, classes: int) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    return tdsnn.adapt(net, name="linear")


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split("digits", "test")


def places(split: Split, selection: Selection, n: int | None = None) -> list[int]:
    found, count, _ = selected(split, selection, n=n, otherwise=5)
    assert found.places is not None
    assert len(found.labels) == count
    assert np.array_equal(found.labels, split.labels[found.places])
    assert np.array_equal(found.images, split.images[found.places])
    return found.places.tolist()


def test_the_first_are_the_split_itself(split: Split) -> None:
    assert selected(split, "first", n=None, otherwise=5)[:2] == (split, 5)
    assert selected(split, "first", n=7, otherwise=5)[1] == 7


def test_drawn_ones_belong_to_their_seed_and_number(split: Split) -> None:
    assert places(split, "random") == places(split, "random:0")
    assert places(split, "random:1") != places(split, "random:0")
    drawn = places(split, "random:1", n=50)
    assert len(set(drawn)) == 50
    assert set(places(split, "random:1", n=20)) <= set(drawn)
    # numpy's stream of that seed is frozen, so this holds everywhere.
    assert places(split, "random:7", n=4) == sorted(
        np.random.RandomState(7).permutation(len(split.labels))[:4].tolist()
    )


def test_a_list_or_a_file_of_indices(split: Split, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("9\n3\n\n4\n")
    assert places(split, [9, 3, 4]) == places(split, str(tmp_path / "mine.txt")) == [3, 4, 9]
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf9\r\n3\r\n4\r\n")
    assert places(split, str(tmp_path / "windows.txt")) == [3, 4, 9]


@pytest.mark.parametrize(
    ("selection", "n", "message"),
    [
        ("random:x", None, "'random:x' names no seed"),
        ("random:-1", None, "names no seed"),
        ("random:", None, "names no seed"),
        (f"random:{'9' * 5000}", None, "names no seed"),
        ("", None, "'' is no selection of images"),
        ("nowhere.txt", None, "'nowhere.txt' is no selection of images"),
        ([], None, "at least one"),
        ([1.5], None, "whole numbers"),
        ([-1], None, "whole numbers"),
        ([0, 0], None, "different numbers from 0 to"),
        ([10**6], None, "different numbers from 0 to"),
        ([0, 1], 3, "has 2 indices, and n is 3"),
    ],
)
def test_what_is_no_selection(split: Split, selection: Selection, n: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        selected(split, selection, n=n, otherwise=5)
    assert refused.value.hint


def test_a_result_says_which_images_it_is_about(tmp_path: Path) -> None:
    options = {"data": "digits", "attacks": "fgsm:eps=8/255"}
    model = linear(64, 10)
    drawn = tdsnn.bench(model, n=6, selection="random:3", out=tmp_path, **options)
    assert "6 test images, drawn with seed 3, seed 0" in str(drawn)
    listed = [int(index) for index in load_file(tmp_path / "samples.safetensors")["indices"]]
    again = tdsnn.bench(model, selection=listed, out=tmp_path / "again", **options)
    assert "6 test images, by a list of indices" in str(again)
    assert [cell.survivors for cell in again.cells] == [cell.survivors for cell in drawn.cells]
    assert again.settings["data_digest"] == drawn.settings["data_digest"]
    first = tdsnn.bench(model, n=6, out=tmp_path / "first", **options)
    assert "First 6 test images in canonical order" in str(first)
    assert first.settings["data_digest"] != drawn.settings["data_digest"]
    with pytest.raises(UsageError, match=r"must lie in 1\.\."):
        tdsnn.bench(model, n=10**6, selection="random", out=tmp_path, **options)


def test_arrays_keep_their_order_and_the_text_does_not_claim_another(tmp_path: Path) -> None:
    arrays = (np.zeros((4, 1, 4, 4), dtype=np.uint8), np.arange(4))
    found = tdsnn.bench(linear(16, 4), data=arrays, attacks="fgsm:eps=8/255", n=4, out=tmp_path)
    assert images_of(found.settings) == "First 4 test images"
