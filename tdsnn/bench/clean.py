"""Verdicts of models on the whole test split without attack, through the benchmark and its gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tdsnn.bench.plan import Plan, Subject
from tdsnn.bench.runner import Progress, run_bench
from tdsnn.data._base import Split
from tdsnn.errors import GateError
from tdsnn.results import ResultFolder
from tdsnn.verdicts import CleanVerdicts


def clean_verdicts(
    subjects: Sequence[Subject],
    *,
    dataset: str,
    test: Split,
    folder: Path | None = None,
    progress: Progress = lambda images, label: None,
) -> dict[str, CleanVerdicts]:
    """Judge all test images on the CPU; name of each subject to its verdicts.

    Args:
        folder: for the result and its cells, which are reused; by default one of the cache.

    Raises:
        GateError: a model failed a gate.
        IntegrityError: a stored cell is damaged.
    """
    plan = Plan(dataset=dataset, split=test, n=len(test.labels), strikes=(), device=torch.device("cpu"))
    store = ResultFolder(folder or plan.default_folder(subjects))
    result = run_bench(plan, subjects, store, progress=progress)
    found = {}
    for subject, cell in zip(subjects, result.cells, strict=True):
        stored = store.read_cell(cell.key, plan.n)
        if stored is None:
            raise GateError(f"The clean accuracy of {subject.name} could not be measured: {cell.error}.")
        found[subject.name] = CleanVerdicts(
            weights_sha256=subject.checkpoint_sha256, data_digest=test.digest, right=stored.right
        )
    return found
