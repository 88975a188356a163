"""Training images that are decoded while the network learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tdsnn.data._augment import WHOLE, Part
from tdsnn.data._reader import Decoded, read
from tdsnn.data._split import Split
from tdsnn.data._streamed import Pictures
from tdsnn.errors import IntegrityError
from tdsnn.runtime import send
from tdsnn.schema import Recipe
from tdsnn.training._draws import generator, streamed_batches
from tdsnn.training.images import DECODED, Batches

MOST_BROKEN = 0.01
"""Share of the rows of a shard that may be unusable in an epoch."""


class StreamedBatches(Batches):
    """The same of a split that is decoded in training, by other processes and ahead of time.

    Batches are to be asked for one after the other; any other is where reading begins anew. A row that cannot
    be used is replaced by another one of its batch; more than :data:`MOST_BROKEN` of a shard, and ten, end
    the run.
    """

    def __init__(self, split: Split, recipe: Recipe, *, processes: int, device: torch.device) -> None:
        super().__init__(split, recipe, processes=processes, device=device)
        assert isinstance(split.images, Pictures)
        self._pictures, self._processes = split.images, processes
        groups = self._pictures.shards.groups_of(self._pictures.rows)
        self._groups: list[int] = np.unique(groups, return_counts=True)[1].tolist()
        self._coming: Generator[Decoded, None, None] | None = None
        self._next: tuple[int, int, Part] | None = None
        self._broken: Counter[Path] = Counter()
        self._latest = 0.0
        self._example = ""

    def _require_decoding(self) -> None:
        pass

    def plan(self, epoch: int) -> tuple[Tensor, ...]:
        """Rows of the split (N,) of each batch, in order."""
        recipe = self._recipe
        return streamed_batches(
            recipe.seed,
            epoch,
            groups=self._groups,
            batch_size=recipe.batch_size,
            processes=self._processes,
        )

    def load(self, rows: Tensor, *, epoch: int, step: int, part: Part = WHOLE) -> tuple[Tensor, Tensor]:
        """As :meth:`Batches.load`.

        Raises:
            IntegrityError: a shard is damaged, or has too many rows that cannot be used.
        """
        if self._coming is None or self._next != (epoch, step, part):
            self.close()
            self._coming = self._begun(epoch, step, part)
        batch = next(self._coming)
        self._next = epoch, step + 1, part
        assert torch.equal(batch.rows, torch.from_numpy(self._pictures.rows)[rows]), "the plan was changed"
        self._count(batch)
        images, labels = send(batch.images, self._device), send(batch.labels, self._device)
        return self._augmented(images, labels, epoch=epoch, step=step, part=part)

    def found(self) -> dict[str, float]:
        """The share of rows that could not be used."""
        return {"unreadable": self._latest}

    def remarks(self, means: Mapping[str, float]) -> dict[str, str]:
        """A sentence, if there were such rows."""
        total = self.steps * self._recipe.batch_size
        count = round(means["unreadable"] * total)
        if not count:
            return {}
        example = f"; one of them: {self._example}" if self._example else "."
        return {
            "remark": f"{count:,} of {total:,} pictures of this epoch could not be used and others of their "
            f"batches took their places{example}"
        }

    def close(self) -> None:
        """End the processes that decode; a later batch starts others."""
        if self._coming is not None:
            self._coming.close()
        self._coming = None

    def _begun(self, epoch: int, step: int, part: Part) -> Generator[Decoded, None, None]:
        if not step:
            self._broken.clear()
        recipe, rows = self._recipe, self._pictures.rows
        crops = generator(recipe.seed, "crop", epoch).initial_seed()
        return read(
            self._pictures.shards,
            [rows[batch.numpy()[part.rank :: part.size]] for batch in self.plan(epoch)[step:]],
            shape=self._pictures.shape[1:],
            classes=len(self._split.classes),
            seed=crops if DECODED in recipe.augmentation else None,
            pinned=self._device.type == "cuda",
        )

    def _count(self, batch: Decoded) -> None:
        self._latest = len(batch.broken) / len(batch.rows)
        for row, reason in batch.broken:
            path, _ = self._pictures.shards.place(row)
            self._broken[path] += 1
            self._example = reason
            if self._broken[path] > max(10, MOST_BROKEN * self._pictures.shards.rows_of(path)):
                raise IntegrityError(
                    f"{path} has {self._broken[path]} rows that cannot be used; the latest: {reason}",
                    hint="Fetch the file again, or remove it so that another source is used.",
                )


def training_batches(split: Split, recipe: Recipe, *, processes: int, device: torch.device) -> Batches:
    """The batches of a split, whether it is decoded or streamed; see :class:`Batches`."""
    kind = StreamedBatches if isinstance(split.images, Pictures) else Batches
    return kind(split, recipe, processes=processes, device=device)
