"""From names to loaded models: a topographic model never comes without its twin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tdsnn import manifest, weights, zoo
from tdsnn.bench.plan import Subject
from tdsnn.errors import UsageError
from tdsnn.files import sha256_of


def with_twins(names: Sequence[str]) -> tuple[str, ...]:
    """Full names and paths in order, each topographic zoo entry followed by its twin, without repetition.

    Raises:
        UsageError: an unknown name.
    """
    chosen: list[str] = []
    for name in names:
        if _is_path(name):
            chosen.append(name)
            continue
        entry = manifest.resolve(name)
        chosen.append(entry.name)
        if entry.topographic:
            chosen.append(manifest.resolve(entry.twin).name)
    return tuple(dict.fromkeys(chosen))


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Models of a benchmark and the dataset that all of them are for."""

    subjects: tuple[Subject, ...]
    dataset: str


def load_subjects(names: Sequence[str], *, device: torch.device, compiled: bool = False) -> Loaded:
    """Load zoo entries and checkpoint folders.

    Args:
        compiled: whether spiking layers on CPU run through ``torch.compile``, which pays for long runs.

    Raises:
        UsageError: unknown name, or models of different datasets.
        MissingError, IntegrityError: as :func:`tdsnn.zoo.load`.
    """
    subjects, datasets = [], {}
    for name in names:
        location = zoo.locate(name)
        datasets[name] = weights.read_checkpoint(location.folder).config.dataset
        twin = None
        if not _is_path(name):
            entry = manifest.resolve(name)
            twin = entry.twin if entry.topographic else None
        model = zoo.load(name, device=str(device))
        subjects.append(
            Subject(
                name=name,
                model=model,
                checkpoint_sha256=sha256_of(location.folder / weights.WEIGHTS_FILE),
                source=location.source,
                twin=twin,
            )
        )
    if len(set(datasets.values())) > 1:
        found = ", ".join(f"{name}: {dataset}" for name, dataset in datasets.items())
        raise UsageError(
            f"The models were trained on different datasets ({found}), so they cannot share a table.",
            hint="Run tdsnn-zoo bench once for each dataset.",
        )
    if compiled and device.type == "cpu":
        for subject in subjects:
            subject.model.compile_neurons()
    return Loaded(subjects=tuple(subjects), dataset=next(iter(datasets.values())))


def _is_path(name: str) -> bool:
    return os.sep in name or name in (".", "..", "~")
