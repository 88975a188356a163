"""The rows of many Parquet files as one table that is never in memory: what is read is one row group.

Libraries that stream such files were tried on 20,000 photographs with two workers: ``datasets`` 5.2 (252 to
357 images/s, 3.1 GB) forgets its shuffle buffer when it is resumed, and WebDataset (222 to 237, 0.6 to 1.2
GB) cannot be resumed within an epoch. PyArrow's row groups behind PyTorch's ``DataLoader`` (137 to 315, 0.8
GB; the machine was not calm) can promise the weights of an undisturbed run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tdsnn.errors import IntegrityError

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

LARGEST_GROUP = 2**28
"""Bytes of encoded photographs in one row group, 256 MiB; it is the least that can be read."""
_HINT = "Fetch the file again, or remove it so that another source is used."
_TAIL = 8
"""Bytes after the footer of a Parquet file: its length and the format's name."""


class Encoded(NamedTuple):
    """What a row holds, as it was found."""

    picture: bytes | None
    label: int | None


class _Shard(NamedTuple):
    path: Path
    metadata: FileMetaData
    first: int
    """Number of its first row group among those of all shards."""


class Shards:
    """Parquet files with a column of encoded pictures (structs with ``bytes``) and one of classes.

    Only footers are read here. Rows and row groups are counted through all files, in their order.

    Args:
        paths: at least one file.
        image, label: names of the columns.

    Raises:
        IntegrityError: a file is not Parquet, lacks a column, or has a row group of more than
            :data:`LARGEST_GROUP` bytes.
    """

    def __init__(self, paths: Sequence[Path], *, image: str, label: str) -> None:
        self._image, self._label = image, label
        self._shards: list[_Shard] = []
        sizes: list[int] = []
        digest = hashlib.sha256()
        for path in paths:
            metadata, footer = _open(path, image=image, label=label)
            self._shards.append(_Shard(path, metadata, len(sizes)))
            sizes += (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
            digest.update(f"{path.name} {path.stat().st_size} {footer}\n".encode())
        self.starts: NDArray[np.int64] = np.cumsum([0, *sizes], dtype=np.int64)
        """(G + 1,) first row of each row group, and the number of rows."""
        self.digest = digest.hexdigest()
        """sha256 of names, sizes and footers of the files. A footer has place, size and least and greatest
        value of every column of every row group, so other content has another one but for forgery."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in order."""
        return tuple(shard.path for shard in self._shards)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def rows_of(self, path: Path) -> int:
        """Number of rows of one of the files."""
        return int(next(shard.metadata.num_rows for shard in self._shards if shard.path == path))

    def groups_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row group (N,) of each row (N,)."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def place(self, row: int) -> tuple[Path, str]:
        """File of a row, and the row in words: ``Row 17 of FILE``."""
        shard = self._shard(int(self.groups_of(np.array([row]))[0]))
        return shard.path, f"Row {row - int(self.starts[shard.first])} of {shard.path}"

    def read(self, group: int) -> list[Encoded]:
        """All rows of one row group.

        Raises:
            IntegrityError: naming the file, which was damaged after it was opened.
        """
        import pyarrow as pa
        from pyarrow import compute, parquet

        shard = self._shard(group)
        try:
            with parquet.ParquetFile(shard.path, metadata=shard.metadata) as file:
                columns = [f"{self._image}.bytes", self._label]
                table = file.read_row_group(group - shard.first, columns=columns, use_threads=False)
            pictures = compute.struct_field(table.column(self._image), "bytes").to_pylist()
            labels = table.column(self._label).to_pylist()
        except (pa.ArrowException, OSError, ValueError, LookupError) as error:
            raise IntegrityError(f"{shard.path} is damaged: {error}.", hint=_HINT) from error
        if len(pictures) != self.starts[group + 1] - self.starts[group]:
            raise IntegrityError(f"{shard.path} has another number of rows than it says.", hint=_HINT)
        return [Encoded(picture, label) for picture, label in zip(pictures, labels, strict=True)]

    def labels(self) -> NDArray[np.int64]:
        """Classes (N,) of all rows; -1 where a row has none.

        Raises:
            IntegrityError: naming the file that is damaged.
        """
        import pyarrow as pa
        from pyarrow import compute, parquet

        found: list[NDArray[np.int64]] = []
        for shard in self._shards:
            try:
                with parquet.ParquetFile(shard.path, metadata=shard.metadata) as file:
                    column = file.read(columns=[self._label], use_threads=False).column(self._label)
                found.append(compute.fill_null(column, -1).to_numpy().astype(np.int64))
            except (pa.ArrowException, OSError, ValueError, LookupError) as error:
                raise IntegrityError(f"{shard.path} is damaged: {error}.", hint=_HINT) from error
        labels = np.concatenate(found)
        if len(labels) != len(self):
            raise IntegrityError("The shards have another number of labels than of rows.", hint=_HINT)
        return labels

    def _shard(self, group: int) -> _Shard:
        found: _Shard = next(shard for shard in reversed(self._shards) if shard.first <= group)
        return found


def _open(path: Path, *, image: str, label: str) -> tuple[FileMetaData, str]:
    """What the footer of a file says, after it was checked, and its sha256."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            metadata, schema = file.metadata, file.schema_arrow
        with path.open("rb") as raw:
            raw.seek(-_TAIL, 2)
            length = int.from_bytes(raw.read(_TAIL)[:4], "little")
            raw.seek(-_TAIL - length, 2)
            footer = hashlib.sha256(raw.read(length)).hexdigest()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError(f"{path} is not a readable Parquet file: {error}.", hint=_HINT) from error
    missing = {image, label} - set(schema.names)
    if missing:
        raise IntegrityError(f"{path} has no column {', '.join(sorted(missing))}.", hint=_HINT)
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise IntegrityError(f"{path} has no encoded pictures in its column '{image}'.", hint=_HINT)
    if not pa.types.is_integer(schema.field(label).type):
        raise IntegrityError(
            f"{path} has labels of type {schema.field(label).type}, not whole numbers.", hint=_HINT
        )
    groups = range(metadata.num_row_groups)
    largest = max((metadata.row_group(group).total_byte_size for group in groups), default=0)
    if largest > LARGEST_GROUP:
        raise IntegrityError(
            f"{path} has a row group of {largest:,} bytes; at most {LARGEST_GROUP:,} are read at once.",
            hint="Write it anew with pyarrow.parquet.write_table(..., row_group_size=100).",
        )
    return metadata, footer
