"""From names to loaded models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from tdsnn import zoo
from tdsnn.attacks._gradient import inference, respond
from tdsnn.benchmark.names import Twin, require_alike, trained_under_attack
from tdsnn.benchmark.plan import ModelEntry
from tdsnn.data._base import Split
from tdsnn.errors import UsageError
from tdsnn.models._base import Model
from tdsnn.zoo import Opened


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Models of a benchmark and the dataset that all of them are for."""

    entries: tuple[ModelEntry, ...]
    dataset: str


def load_entries(
    names: Sequence[str],
    *,
    device: torch.device,
    twins: Mapping[str, Twin] | None = None,
    compiled: bool = False,
) -> Loaded:
    """Load zoo entries and checkpoint folders.

    Args:
        twins: what :func:`with_twins` found about the names, if the models are to be set beside each other.
        compiled: whether to call :func:`compile_entries` on them.

    Raises:
        UsageError: unknown name, models of different datasets, or a twin that is none.
        MissingError, IntegrityError: as :func:`tdsnn.zoo.load`.
    """
    opened = {name: zoo.open_model(name, device=str(device)) for name in names}
    entries = [_entry(name, one, (twins or {}).get(name, Twin())) for name, one in opened.items()]
    for entry in entries:
        if entry.twin in opened:
            require_alike(entry.name, opened[entry.name].config, entry.twin, opened[entry.twin].config)
    datasets = {name: one.config.dataset for name, one in opened.items()}
    if len(set(datasets.values())) > 1:
        found = ", ".join(f"{name}: {dataset}" for name, dataset in datasets.items())
        raise UsageError(
            f"The models were trained on different datasets ({found}), so they cannot share a table.",
            hint="Run tdsnn-zoo bench once for each dataset.",
        )
    if compiled:
        compile_entries(entries)
    return Loaded(entries=tuple(entries), dataset=next(iter(datasets.values())))


def with_outputs(split: Split, entries: Sequence[ModelEntry]) -> Split:
    """A split of the user's, its classes made up to the number of outputs: arrays do not say how many there
    are, and the last may be without an image."""
    images, _ = split.take(slice(0, 1))
    with inference(entries[0].model):
        outputs = respond(entries[0].model, images.to(_device(entries[0]))).shape[-1]
    missing = map(str, range(len(split.classes), outputs))
    return replace(split, classes=(*split.classes, *missing))


def _device(entry: ModelEntry) -> torch.device:
    return next((one.device for one in entry.model.parameters()), torch.device("cpu"))


def compile_entries(entries: Sequence[ModelEntry]) -> None:
    """Let spiking layers run through compiled operators, which pays for long runs."""
    for entry in entries:
        if isinstance(entry.model, Model):
            entry.model.compile_operators()


def _entry(name: str, opened: Opened, twin: Twin) -> ModelEntry:
    return ModelEntry(
        name=name,
        model=opened.model,
        checkpoint_sha256=opened.weights_sha256,
        source=opened.location.source,
        adversarially_trained=trained_under_attack(opened.config),
        twin=twin.name,
        alone=twin.lacking,
    )
