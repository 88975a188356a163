"""Hostile and damaged files of images and arrays: one sentence each, and no memory for mere claims."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tdsnn.data._arrays import open_array
from tdsnn.data._formats import read_idx, read_parquet
from tdsnn.data._own import open_test_split
from tdsnn.data._pictures import LARGEST_SIDE, decode
from tdsnn.errors import IntegrityError, TdsnnError
from tdsnn.progress import silent

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8))
HUGE = LARGEST_SIDE + 1


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, format=kind, **options)
    return stream.getvalue()


def mutations(content: bytes, count: int) -> Iterator[bytes]:
    """The content with a byte changed, cut off, or followed by more."""
    draws = np.random.default_rng(0)
    for _ in range(count):
        altered = bytearray(content)
        for _ in range(draws.integers(1, 4)):
            altered[draws.integers(len(altered))] = draws.integers(256)
        cut = len(altered) if draws.random() < 0.7 else int(draws.integers(len(altered)))
        yield bytes(altered[:cut]) + bytes(draws.integers(0, 256, draws.integers(3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {}), ("WEBP", {})]
)
def test_pictures_of_the_three_formats(kind: str, options: dict[str, object]) -> None:
    found = decode(encoded(kind, **options), name="It")
    assert (found.size, found.mode) == (PICTURE.size, "RGB")
    if kind == "PNG" or options:
        assert found.tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_no_damage_of_a_picture_is_a_traceback(kind: str) -> None:
    for content in mutations(encoded(kind), 150):
        with suppress(IntegrityError):
            assert max(decode(content, name="It").size) <= LARGEST_SIDE


@pytest.mark.parametrize("kind", ["EPS", "GIF", "TIFF", "BMP", "PPM"])
def test_other_formats_are_refused_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(encoded(kind))
    with pytest.raises(IntegrityError, match=r"cat\.jpg cannot be decoded"):
        decode(path, name=str(path))


def png_of(width: int, height: int) -> bytes:
    content = encoded("PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def webp_of(width: int, height: int) -> bytes:
    """An extended header in front of a small picture."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas + encoded("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("build", [png_of, webp_of])
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_size(
    build: Callable[[int, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "new", lambda *_: pytest.fail("memory for the pixels"))
    with pytest.raises(IntegrityError, match=f"{HUGE} x 9 pixels; at most {LARGEST_SIDE}"):
        decode(build(HUGE, 9), name="It")


def test_a_webp_is_refused_before_pillow_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow takes the memory when it opens"))
    for width, height in ((16383, 16383), (1, HUGE)):
        with pytest.raises(IntegrityError, match=f"{width} x {height} pixels"):
            decode(webp_of(width, height), name="It")


def test_a_gzip_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    labels = tmp_path / "labels.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes(2)))
    bomb = tmp_path / "images.gz"
    header = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 4, 4)
    bomb.write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(IntegrityError, match="not an IDX file of bytes"):
        read_idx(bomb, labels, shape=(1, 4, 4))
    bomb.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 2**31, 2**31, 4)))
    with pytest.raises(IntegrityError, match="at most"):
        read_idx(bomb, labels, shape=(1, 4, 4))


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "test.parquet"
    parquet.write_table(pa.table({"image": [{"bytes": encoded("PNG")}], "label": [3.7]}), path)
    with pytest.raises(IntegrityError, match="labels of type double, not whole numbers"):
        read_parquet(path, image="image", label="label", shape=(3, 8, 6), progress=silent)


def test_a_parquet_file_whose_footer_is_damaged(tmp_path: Path) -> None:
    """A name that is no text, and another number of rows than there are."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "test.parquet"
    parquet.write_table(pa.table({"image": [{"bytes": encoded("PNG")}] * 3, "label": [0, 1, 2]}), path)
    content = path.read_bytes()
    footer = content.index(b"schema")
    damages = [content.replace(b"label", b"lab\xb0l")]
    for at in range(footer, len(content) - 8):
        for count in (2, 4, 5):
            altered = content[:at] + bytes([2 * count]) + content[at + 1 :]
            with suppress(Exception):
                if parquet.read_metadata(pa.BufferReader(altered)).num_rows == count:
                    damages.append(altered)
    assert len(damages) == 4
    for altered in damages:
        path.write_bytes(altered)
        with pytest.raises(IntegrityError, match=r"not a readable Parquet|another number|has no column"):
            read_parquet(path, image="image", label="label", shape=(3, 8, 6), progress=silent)


def test_no_damage_of_an_array_is_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(12, dtype=np.uint8).reshape(3, 4))
    content, refused = path.read_bytes(), 0
    header = content[:80]
    for altered in mutations(header, 400):
        path.write_bytes(altered + content[80:])
        refused += 1
        with suppress(IntegrityError):
            open_array(path)
            refused -= 1
    assert refused > 200


def test_an_archive_is_not_taken_for_an_array(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(IntegrityError, match="several arrays"):
        open_array(path)
    with pytest.raises(TdsnnError, match="There is no file"):
        open_test_split(f"{tmp_path / 'none.npy'},{path}")
