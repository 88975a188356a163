"""Sources: every format yields the same split, order and encoding do not matter, bad files are named."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from tdsnn.data import _base
from tdsnn.data._base import Dataset, SplitInfo, load_split
from tdsnn.data._cache import canonical_order
from tdsnn.data._sources import (
    HubRepo,
    IdxFolder,
    ImageFolder,
    LocalMirror,
    ParquetLayout,
    PythonPackage,
    Source,
)
from tdsnn.errors import IntegrityError, MissingError, UsageError
from tdsnn.progress import Progress

LAYOUT = ParquetLayout(config="plain", image="image", label="label")
COUNT, SIDE = 40, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 1, SIDE, SIDE), dtype=np.uint8)
LABELS = RNG.integers(0, 3, COUNT, dtype=np.int64)
_, DIGEST = canonical_order(IMAGES, LABELS)


@dataclass
class OneDataset:
    """Stands in for the registry and holds one dataset."""

    dataset: Dataset

    def load(self, name: str) -> Dataset:
        assert name == "tiny"
        return self.dataset


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make ``tiny`` the only dataset, with the given sources, cache and mirror below ``tmp_path``."""
    monkeypatch.setenv("TDSNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TDSNN_DATA", str(tmp_path / "mirror"))

    def with_sources(*sources: Source, digest: str | None = DIGEST, classes: int = 3) -> None:
        dataset = Dataset(
            title="Tiny",
            shape=(1, SIDE, SIDE),
            classes=tuple("abc"[:classes]),
            splits={"test": SplitInfo(size=COUNT, digest=digest)},
            sources=sources,
            licence="none",
            citation="none",
        )
        monkeypatch.setattr(_base, "DATASETS", OneDataset(dataset))

    return with_sources


def encoded(image: NDArray[np.uint8], form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[0]).save(buffer, format=form, lossless=True)
    return buffer.getvalue()


def write_parquet(
    path: Path,
    *,
    cells: Sequence[object] | None = None,
    order: Sequence[int] = range(COUNT),
    form: str = "PNG",
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if cells is None:
        cells = [{"bytes": encoded(IMAGES[row], form), "path": None} for row in order]
    parquet.write_table(pa.table({"image": cells, "label": LABELS[list(order)]}), path)
    return path


def write_idx(
    folder: Path, *, images: NDArray[np.uint8] = IMAGES, labels: NDArray[np.int64] = LABELS
) -> IdxFolder:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images.gz", images[:, 0]), ("labels.gz", labels.astype(np.uint8))):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / name).write_bytes(gzip.compress(head + array.tobytes()))
    return IdxFolder(folder=folder, files={"test": ("images.gz", "labels.gz")}, package="tiny-data")


def mirror_file(tmp_path: Path) -> Path:
    return tmp_path / "mirror" / "tiny" / LAYOUT.filename("test")


MIRROR = LocalMirror(folder="tiny", layout=LAYOUT)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(COUNT)))
def test_digest_and_stored_order_do_not_depend_on_row_order(order: list[int]) -> None:
    first, digest = canonical_order(IMAGES[order], LABELS[order])
    reference, _ = canonical_order(IMAGES, LABELS)
    assert digest == DIGEST
    assert np.array_equal(IMAGES[order][first], IMAGES[reference])
    assert np.array_equal(LABELS[order][first], LABELS[reference])


@settings(max_examples=25, deadline=None)
@given(row=st.integers(0, COUNT - 1), pixel=st.integers(0, SIDE * SIDE - 1))
def test_digest_depends_on_every_pixel_label_and_the_shape(row: int, pixel: int) -> None:
    images, labels = IMAGES.copy(), LABELS.copy()
    images[row].reshape(-1)[pixel] ^= 1
    labels[row] += 1
    assert canonical_order(images, LABELS)[1] != DIGEST
    assert canonical_order(IMAGES, labels)[1] != DIGEST
    assert canonical_order(IMAGES.reshape(COUNT, 1, 2 * SIDE, SIDE // 2), LABELS)[1] != DIGEST


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_parquet_in_any_order_and_encoding_is_the_same_split(
    tmp_path: Path, install: Install, form: str
) -> None:
    write_parquet(mirror_file(tmp_path), order=list(reversed(range(COUNT))), form=form)
    install(MIRROR)
    seen = []
    split = load_split("tiny", "test", progress=lambda done, total: seen.append((done, total)))
    order, _ = canonical_order(IMAGES, LABELS)
    assert np.array_equal(split.images, IMAGES[order])
    assert np.array_equal(split.labels, LABELS[order])
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert (split.digest, split.pinned, split.classes) == (DIGEST, True, ("a", "b", "c"))
    assert split.origin == str(mirror_file(tmp_path))
    assert seen[-1] == (COUNT, COUNT)


def test_idx_files_are_the_same_split(tmp_path: Path, install: Install) -> None:
    install(MIRROR, write_idx(tmp_path / "system"))
    split = load_split("tiny", "test")
    assert split.digest == DIGEST
    assert str(tmp_path / "system") in split.origin


def test_a_python_package_is_read_with_its_reader(install: Install) -> None:
    install(PythonPackage(package="numpy", module="numpy", reader=lambda split: (IMAGES, LABELS)))
    assert load_split("tiny", "test").origin == "numpy"


def test_the_hub_is_asked_last_for_the_right_file(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = write_parquet(tmp_path / "hub" / "file.parquet")
    asked = []

    def fetch(repo: str, filenames: Sequence[str], *, by_size: bool, progress: Progress) -> tuple[Path, ...]:
        asked.append((repo, *filenames, by_size))
        return (downloaded,)

    monkeypatch.setattr("tdsnn.hub.fetch_dataset_files", fetch)
    install(MIRROR, HubRepo(repo="owner/tiny", layout=LAYOUT))
    assert load_split("tiny", "test").origin == str(downloaded)
    assert asked == [("owner/tiny", "plain/test-00000-of-00001.parquet", False)]


def test_without_a_pinned_digest_the_split_loads_and_says_so(tmp_path: Path, install: Install) -> None:
    write_parquet(mirror_file(tmp_path))
    install(MIRROR, digest=None)
    assert not load_split("tiny", "test").pinned
    mirror_file(tmp_path).unlink()
    split = load_split("tiny", "test")
    assert (split.digest, split.pinned) == (DIGEST, False)


def test_missing_everywhere_lists_every_source_and_every_remedy(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(
        repo: str, filenames: Sequence[str], *, by_size: bool, progress: Progress
    ) -> tuple[Path, ...]:
        raise MissingError("the Hub cannot be reached", hint="Connect to the network.")

    monkeypatch.setattr("tdsnn.hub.fetch_dataset_files", unreachable)
    monkeypatch.delenv("TDSNN_DATA")
    idx = write_idx(tmp_path / "system")
    install(
        MIRROR,
        replace(idx, folder=tmp_path / "nothing"),
        PythonPackage(package="tiny-py", module="no_such_module_here", reader=lambda split: (IMAGES, LABELS)),
        HubRepo(repo="owner/tiny", layout=LAYOUT),
    )
    with pytest.raises(MissingError) as caught:
        load_split("tiny", "test")
    for part in ("TDSNN_DATA is not set", "images.gz does not exist", "not installed", "cannot be reached"):
        assert part in caught.value.message
    for part in ("Set TDSNN_DATA", "apt-get install tiny-data", "pip install tiny-py", "Connect"):
        assert part in caught.value.hint


def test_altered_mirror_names_file_expected_and_found_digest(tmp_path: Path, install: Install) -> None:
    altered = IMAGES.copy()
    altered[7, 0, 3, 3] ^= 1
    cells = [{"bytes": encoded(image, "PNG"), "path": None} for image in altered]
    path = write_parquet(mirror_file(tmp_path), cells=cells)
    install(MIRROR, write_idx(tmp_path / "good"))
    with pytest.raises(IntegrityError) as caught:
        load_split("tiny", "test")
    for part in (str(path), DIGEST, canonical_order(altered, LABELS)[1]):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ({"bytes": b"not an image", "path": None}, "cannot be decoded"),
        ({"bytes": encoded(IMAGES[0], "PNG")[:-30], "path": None}, "cannot be decoded"),
        ({"bytes": None, "path": "elsewhere.png"}, "no encoded image"),
        ({"bytes": encoded(IMAGES[0][:, :5], "PNG"), "path": None}, "is 5x8, expected 8x8"),
    ],
)
def test_a_bad_image_is_named_by_row(
    tmp_path: Path, install: Install, cell: dict[str, object], reason: str
) -> None:
    good = {"bytes": encoded(IMAGES[0], "PNG"), "path": None}
    path = write_parquet(mirror_file(tmp_path), cells=[good] * 3 + [cell] + [good] * (COUNT - 4))
    install(MIRROR)
    with pytest.raises(IntegrityError, match=reason) as caught:
        load_split("tiny", "test")
    assert f"Image 3 of {path}" in caught.value.message


def test_truncated_parquet_and_foreign_columns_are_named(tmp_path: Path, install: Install) -> None:
    path = write_parquet(mirror_file(tmp_path))
    install(replace(MIRROR, layout=replace(LAYOUT, label="fine_label")))
    with pytest.raises(IntegrityError, match="has no column fine_label"):
        load_split("tiny", "test")
    path.write_bytes(path.read_bytes()[:-100])
    install(MIRROR)
    with pytest.raises(IntegrityError, match="not a readable Parquet file"):
        load_split("tiny", "test")


def test_wrong_number_or_range_is_refused_even_without_a_digest(tmp_path: Path, install: Install) -> None:
    install(write_idx(tmp_path, images=IMAGES[:30], labels=LABELS[:30]), digest=None)
    with pytest.raises(IntegrityError, match=r"\(30, 1, 8, 8\), expected \(40, 1, 8, 8\)"):
        load_split("tiny", "test")
    install(write_idx(tmp_path), digest=None, classes=2)
    with pytest.raises(IntegrityError, match="labels 0 to 2, expected 0 to 1"):
        load_split("tiny", "test")


def test_broken_idx_files_are_named(tmp_path: Path, install: Install) -> None:
    install(write_idx(tmp_path, labels=LABELS[:30]))
    with pytest.raises(IntegrityError, match="30 labels for 40 images"):
        load_split("tiny", "test")
    install(write_idx(tmp_path, images=IMAGES[:, :, :5]))
    with pytest.raises(IntegrityError, match=r"images of \(5, 8\)"):
        load_split("tiny", "test")
    source = write_idx(tmp_path)
    install(source)
    path = tmp_path / "images.gz"
    whole = path.read_bytes()
    for content, reason in (
        (whole[:-40], "gzip"),
        (b"plain", "gzip"),
        (whole[:20] + b"\0\0\0\0" + whole[24:], "gzip|IDX"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "truncated"),
        (gzip.compress(b"\0\0"), "not an IDX file"),
    ):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=reason) as caught:
            load_split("tiny", "test")
        assert str(path) in caught.value.message


def test_unknown_split_suggests_a_known_one(install: Install) -> None:
    install(MIRROR)
    with pytest.raises(UsageError, match=r"'tests'\. Did you mean test"):
        load_split("tiny", "tests")


FOLDER = ImageFolder(folder="tiny", classes=("a", "b", "c"), suffix=".png", origin="https://example.org")


def fill_folder(root: Path, *, side: int = 2 * SIDE) -> None:
    """The images in blocks of 2 x 2 pixels, one of them in a folder of its own, and a stranger."""
    for index, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = root / "mirror" / "tiny" / ("c" if index == 0 else "") / f"{'abc'[label]}-{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        large = image.repeat(side // SIDE, axis=1).repeat(side // SIDE, axis=2)
        path.write_bytes(encoded(large, "PNG"))
    (root / "mirror" / "tiny" / "stranger-1.png").write_bytes(b"")


def test_a_folder_of_images_is_reduced_and_labelled_by_name(tmp_path: Path, install: Install) -> None:
    fill_folder(tmp_path, side=SIDE)
    install(FOLDER)
    split = load_split("tiny", "test")
    assert split.digest == DIGEST


def test_larger_images_are_reduced(tmp_path: Path, install: Install) -> None:
    fill_folder(tmp_path)
    install(FOLDER, digest=None)
    split = load_split("tiny", "test")
    assert split.images.shape == IMAGES.shape
    assert sorted(split.labels) == sorted(LABELS)
    assert abs(float(split.images.mean()) - float(IMAGES.mean())) < 2


@pytest.mark.parametrize(("content", "reason"), [(b"no image", "cannot be decoded"), (None, "at least 8x8")])
def test_a_bad_image_in_a_folder_is_named(
    content: bytes | None, reason: str, tmp_path: Path, install: Install
) -> None:
    fill_folder(tmp_path)
    bad = tmp_path / "mirror" / "tiny" / "a-99.png"
    bad.write_bytes(content or encoded(IMAGES[0][:, :4, :4], "PNG"))
    install(FOLDER)
    with pytest.raises(IntegrityError, match=f"a-99.png.*{reason}"):
        load_split("tiny", "test")


def test_a_folder_without_images_says_where_to_get_them(install: Install) -> None:
    install(FOLDER)
    with pytest.raises(MissingError) as caught:
        load_split("tiny", "test")
    assert "a-1.png" in caught.value.message
    assert "https://example.org" in caught.value.hint
