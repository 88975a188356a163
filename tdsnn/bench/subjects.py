"""From names to loaded models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tdsnn import manifest, store, zoo
from tdsnn.bench.plan import Subject
from tdsnn.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Models of a benchmark and the dataset that all of them are for."""

    subjects: tuple[Subject, ...]
    dataset: str


def load_subjects(names: Sequence[str], *, device: torch.device, compiled: bool = False) -> Loaded:
    """Load zoo entries and checkpoint folders.

    Args:
        compiled: whether to call :func:`compile_subjects` on them.

    Raises:
        UsageError: unknown name, or models of different datasets.
        MissingError, IntegrityError: as :func:`tdsnn.zoo.load`.
    """
    subjects, datasets = [], {}
    for name in names:
        opened = zoo.open_model(name, device=str(device))
        datasets[name] = opened.config.dataset
        entry = manifest.resolve(name) if store.is_entry(name) else None
        subjects.append(
            Subject(
                name=name,
                model=opened.model,
                checkpoint_sha256=opened.weights_sha256,
                source=opened.location.source,
                twin=entry.twin if entry and entry.topographic else None,
            )
        )
    if len(set(datasets.values())) > 1:
        found = ", ".join(f"{name}: {dataset}" for name, dataset in datasets.items())
        raise UsageError(
            f"The models were trained on different datasets ({found}), so they cannot share a table.",
            hint="Run tdsnn-zoo bench once for each dataset.",
        )
    if compiled:
        compile_subjects(subjects, device=device)
    return Loaded(subjects=tuple(subjects), dataset=next(iter(datasets.values())))


def compile_subjects(subjects: Sequence[Subject], *, device: torch.device) -> None:
    """Let spiking layers on CPU run through compiled operators, which pays for long runs."""
    if device.type == "cpu":
        for subject in subjects:
            subject.model.compile_operators()
