"""A benchmark that was checked, ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tdsnn.processes import team
from tdsnn.progress import Progress, counted, silent

if TYPE_CHECKING:
    from tdsnn.benchmark.plan import ModelEntry, Plan
    from tdsnn.benchmark.shards import Shard
    from tdsnn.result_folder import ResultFolder
    from tdsnn.results import Result


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark whose request was checked and whose models are loaded."""

    plan: Plan
    entries: Sequence[ModelEntry]
    store: ResultFolder
    """For ``result.json``, ``samples.safetensors`` and finished batches."""

    @property
    def folder(self) -> Path:
        """Where the result appears."""
        return self.store.folder

    def run(self, *, fresh: bool = False, progress: Progress = silent) -> Result:
        """Measure what is not in the folder yet, or with ``fresh`` everything; processes that ``torchrun``
        started share the images.

        Raises:
            IntegrityError: a stored cell is damaged.
        """
        from tdsnn.benchmark.runner import run_bench, total_images

        told = counted(progress, total_images(self.plan, self.entries))
        with team() as together:
            found = run_bench(self.plan, self.entries, self.store, fresh=fresh, progress=told, team=together)
            if found.measured:
                from tdsnn.benchmark.time_figures import draw

                together.once(partial(draw, found, self.folder))
            return found

    def run_shard(self, shard: Shard, *, fresh: bool = False, progress: Progress = silent) -> list[str]:
        """Leave in the folder what one of several machines has to compute; :meth:`run` on all that they have
        left gives the result. See :func:`tdsnn.benchmark.runner.run_shard`."""
        from tdsnn.benchmark.runner import run_shard, total_images

        told = counted(progress, total_images(self.plan, self.entries, shard))
        with team() as together:
            return run_shard(
                self.plan, self.entries, self.store, shard=shard, fresh=fresh, progress=told, team=together
            )
