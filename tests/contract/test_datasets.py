"""What every registered dataset promises."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tdsnn.data import _base
from tdsnn.data._base import DATASETS, Dataset, cached_splits, load_split, load_training, verify_split
from tdsnn.data._sources import HubRepo, IdxFolder, PythonPackage, Source
from tdsnn.errors import IntegrityError, MissingError, UsageError

NAMES = DATASETS.names()


def comes_with_a_package(name: str) -> bool:
    return all(isinstance(source, PythonPackage) for source in DATASETS.load(name).sources)


@pytest.mark.parametrize("name", NAMES)
def test_the_definition_is_complete(name: str) -> None:
    dataset = DATASETS.load(name)
    assert dataset.title
    assert dataset.licence
    assert dataset.citation
    assert dataset.shape[0] in (1, 3)
    assert min(dataset.shape) > 0
    assert len(set(dataset.classes)) == len(dataset.classes) > 1
    # A stimulus set has nothing to learn from, so one split is all of it.
    assert set(dataset.splits) in ({"train", "test"}, {"train"})
    for info in dataset.splits.values():
        assert info.size > 0
        assert info.digest is None or re.fullmatch("[0-9a-f]{64}", info.digest)
    digests = [info.digest for info in dataset.splits.values() if info.digest]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_asked_last(name: str) -> None:
    assert not any(isinstance(source, HubRepo) for source in DATASETS.load(name).sources[:-1])


def emptied(source: Source, nowhere: Path) -> Source:
    """The same source on a machine that has nothing."""
    if isinstance(source, IdxFolder):
        return replace(source, folder=nowhere)
    if isinstance(source, PythonPackage):
        return replace(source, module="no_such_module_here")
    return source


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_with_nothing_gets_every_source_and_a_remedy_within_ten_seconds(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DATASETS.load(name)
    bare = replace(dataset, sources=tuple(emptied(source, cache / "nowhere") for source in dataset.sources))

    class Bare:
        def load(self, name: str) -> Dataset:
            return bare

    monkeypatch.setattr(_base, "DATASETS", Bare())
    monkeypatch.delenv("TDSNN_DATA", raising=False)
    started = time.monotonic()
    for split in dataset.splits:
        with pytest.raises(MissingError) as caught:
            load_split(name, split)
        for source in dataset.sources:
            assert source.describe(split) in caught.value.message
        assert caught.value.hint.count("\n  - ") == len(dataset.sources)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_split_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=f"no split of {name} called 'testing'"):
        load_split(name, "testing")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if comes_with_a_package(name) else pytest.mark.data) for name in NAMES],
)
def test_what_is_on_this_machine_is_as_promised(name: str) -> None:
    dataset = DATASETS.load(name)
    last = list(dataset.splits)[-1]
    info = dataset.splits[last]
    try:
        split = verify_split(name, last)
    except MissingError as error:
        pytest.skip(error.message)
    assert split.images.shape == (info.size, *dataset.shape)
    assert split.images.dtype == np.uint8
    assert split.labels.shape == (info.size,)
    assert split.labels.dtype == np.int64
    assert split.classes == dataset.classes
    assert split.digest == (info.digest or split.digest)
    assert split.pinned == (info.digest is not None)
    assert set(np.unique(split.labels)) == set(range(len(dataset.classes)))


@pytest.mark.parametrize("name", [name for name in NAMES if len(DATASETS.load(name).splits) > 1])
def test_training_images_are_held_out_for_choices(name: str) -> None:
    info = DATASETS.load(name).held_out
    assert info is not None
    most = 10_000 if DATASETS.load(name).streamed else 5_000
    assert info.size == min(most, DATASETS.load(name).splits["train"].size // 10)
    if name.startswith("cifar") and "train" not in cached_splits(name):
        pytest.skip(
            "decoding 50,000 photographs takes longer than the other tests; training checks the digest"
        )
    try:
        rest, held_out = load_training(name)
        whole = load_split(name, "train")
    except MissingError as error:
        pytest.skip(error.message)
    assert len(held_out.labels) == info.size
    assert len(rest.labels) + info.size == len(whole.labels)
    assert held_out.digest == info.digest
    parts = [Counter(hash(image.tobytes()) for image in part.images) for part in (rest, held_out, whole)]
    assert parts[0] + parts[1] == parts[2], "each image is in one part"
    assert set(np.unique(held_out.labels)) == set(range(len(whole.classes)))


def test_held_out_images_of_another_content_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    digits = DATASETS.load("digits")
    assert digits.held_out is not None

    class Changed:
        def load(self, name: str) -> Dataset:
            return replace(digits, held_out=replace(digits.held_out, digest="0" * 64))

    monkeypatch.setattr(_base, "DATASETS", Changed())
    with pytest.raises(IntegrityError, match=f"content sha256 {digits.held_out.digest}, expected 0000"):
        load_training("digits")


def test_a_stimulus_set_is_not_trained_on() -> None:
    with pytest.raises(UsageError, match="floc holds no training images out"):
        load_training("floc")


def test_digits_splits_are_disjoint_stratified_and_use_the_full_range() -> None:
    pytest.importorskip("sklearn")
    train, test = load_split("digits", "train"), load_split("digits", "test")
    parts = {part.tobytes() for part in train.images} & {part.tobytes() for part in test.images}
    assert not parts
    assert np.array_equal(
        np.bincount(test.labels), (np.bincount(train.labels) + np.bincount(test.labels)) // 5
    )
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)


def test_listing_datasets_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tdsnn.data._base import DATASETS, cached_splits\n"
        "for name in DATASETS.names(): cached_splits(name)\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'PIL', 'sklearn', 'huggingface_hub', 'datasets'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
