"""Verdicts of models on the whole test split without attack, through the benchmark and its gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tdsnn.benchmark.batches import Progress
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.result_folder import ResultFolder
from tdsnn.verdicts import CleanVerdicts


def clean_verdicts(
    entries: Sequence[ModelEntry],
    *,
    dataset: str,
    test: Split,
    folder: Path | None = None,
    progress: Progress = lambda images, label: None,
) -> dict[str, CleanVerdicts]:
    """Judge all test images on the CPU; name of each entry to its verdicts.

    Args:
        folder: for the result and its cells, which are reused; by default one of the cache.

    Raises:
        GateError: a model failed a gate.
        IntegrityError: a stored cell is damaged.
    """
    plan = Plan(dataset=dataset, split=test, n=len(test.labels), attacks=(), device=torch.device("cpu"))
    store = ResultFolder(folder) if folder else plan.default_folder(entries)
    result = run_bench(plan, entries, store, progress=progress)
    found = {}
    for entry, cell in zip(entries, result.cells, strict=True):
        stored = store.read_cell(cell.key, plan.n, batch_size=plan.batch_size)
        if stored is None or cell.error is not None:
            raise GateError(f"{entry.name} has no accuracy: {cell.error}")
        found[entry.name] = CleanVerdicts(
            weights_sha256=entry.checkpoint_sha256,
            data_digest=test.digest,
            scores=stored.values,
            task=test.task,
        )
    return found
