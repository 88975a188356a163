"""Images and what they show, ready to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tdsnn.data._cache import Rows
    from tdsnn.data._streamed import Pictures


class Images(Protocol):
    """An array uint8 (N, C, H, W), 0..255, or what decodes one when it is asked for a part of it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split, ready to use, rows in canonical order: the first n are the same on every machine.

    The arrays are read-only and mapped from disk; index with an array, or copy, before ``torch.from_numpy``.
    """

    images: Images
    """(N, C, H, W), 0..255; of a streamed dataset :class:`~tdsnn.data._streamed.Pictures`."""
    labels: NDArray[np.int64]
    """(N,), index into ``classes``."""
    classes: tuple[str, ...]
    digest: str
    """Sha256 of the content, 64 hex digits."""
    pinned: bool
    """Whether the digest was checked against one pinned in the dataset's file."""
    origin: str
    """File or package the samples were first read from."""
    task: str = "classification"
    """What a network learns here, a name of ``tdsnn.tasks``."""
    canonical: bool = True
    """Whether the rows are in canonical order; arrays of one's own and streamed rows keep theirs."""
    places: NDArray[np.int64] | None = None
    """(N,) where each row was in the split that these were selected from; None of a whole split."""
    rows: Rows | None = None
    """What the rows must be, of a split that was stored before; None of one that was just decoded."""
    left_out: tuple[str, ...] = ()
    """Why rows that should be here are not, a sentence for each."""

    def take(self, indices: slice | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), float in [0, 1], and classes (N,), int64, copied from disk.

        Raises:
            IntegrityError: a row is not what was decoded.
        """
        import torch

        images, labels = self._read(indices)
        return torch.from_numpy(images).float().div_(255), torch.from_numpy(labels)

    def targets(self, indices: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes (N,) of rows, checked as by :meth:`take`."""
        import numpy as np

        if self.rows is None:
            return np.array(self.labels[indices])
        return self._read(indices)[1]

    def _read(self, indices: slice | NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Copies of rows, which were compared with what they must be."""
        import numpy as np

        images, labels = np.array(self.images[indices]), np.array(self.labels[indices])
        if self.rows is not None:
            self.rows.check(images, labels, np.arange(len(self.labels))[indices])
        return images, labels

    def select(self, indices: NDArray[np.int64], *, name: str) -> Split:
        """Rows in ascending order as a split in memory, or streamed if this is; ``name`` says in ``origin``
        what they are."""
        from tdsnn.data import _cache
        from tdsnn.data._streamed import Pictures

        if isinstance(self.images, Pictures):
            return self.streamed(self.images.select(indices), name=name, places=indices)
        images, labels = self._read(indices)
        digest = self.rows.digest(indices) if self.rows else _cache.canonical_order(images, labels)[1]
        origin = f"{name} of {self.origin}"
        return replace(
            self, images=images, labels=labels, digest=digest, origin=origin, places=indices, rows=None
        )

    def streamed(self, pictures: Pictures, *, name: str, places: NDArray[np.int64] | None = None) -> Split:
        """Other pictures of the same shards; ``name`` says in ``origin`` what they are."""
        return replace(
            self,
            images=pictures,
            labels=pictures.labels,
            digest=pictures.digest,
            origin=f"{name} of {self.origin}",
            places=places,
        )
