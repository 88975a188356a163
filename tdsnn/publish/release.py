"""From a finished run to an entry of the zoo folder: its checkpoint, release record, verdicts and card."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from tdsnn import manifest as manifests
from tdsnn import paths, store, verdicts
from tdsnn.benchmark.clean import clean_verdicts
from tdsnn.benchmark.entries import load_entries
from tdsnn.benchmark.seeds import RATE_ALIGNMENT
from tdsnn.data._base import DATASETS, Split, load_split
from tdsnn.errors import GateError, UsageError
from tdsnn.files import copy_atomic, file_error, sha256_of, undone
from tdsnn.models._base import Model
from tdsnn.report import cards
from tdsnn.schema import FileRecord, Manifest, Release
from tdsnn.stats import wilson
from tdsnn.tasks._base import TASKS
from tdsnn.topography.alignment import NEIGHBOURHOODS, LayerAlignment, firing_rates, measure_alignment
from tdsnn.training.loop import LOG
from tdsnn.training.state import CHECKPOINT, OUTCOME, check_settings, read_log, read_outcome
from tdsnn.verdicts import CleanVerdicts

MEASURED_IMAGES = 1_000
"""The first of a split, on which sheets are measured; all of a smaller one."""
_BATCH = 100


def register_run(run_dir: Path, *, force: bool = False) -> Release:
    """Measure a finished run; put it into ``checkpoints``, ``verdicts`` and ``releases`` of the zoo folder.

    Clean accuracy comes from the benchmark itself, over the whole test split, after its gates. What is too
    large for the project goes to the cache, from where it can be published. If it fails or is stopped, the
    zoo folder is as it was.

    Args:
        run_dir: of the run, or its checkpoint.
        force: also a model that is no better than chance.

    Raises:
        UsageError: the run is not finished, ran under other settings than its manifest has now, or has a twin
            that is no entry of the zoo.
        GateError: the model failed a gate, is no better than chance, or a layer is too silent to be measured.
    """
    if run_dir.name == CHECKPOINT and (run_dir.parent / OUTCOME).is_file():
        run_dir = run_dir.parent
    outcome = read_outcome(run_dir)
    if outcome is None:
        raise UsageError(
            f"There is no finished run in {run_dir}.",
            hint=f"See what it is and how it goes on: tdsnn-zoo info {quote(str(run_dir))}",
        )
    manifest = manifests.resolve(outcome.name)
    manifests.require_writable(manifest.name)
    _require_twin(manifest)
    check_settings(run_dir, manifest)
    test = load_split(manifest.dataset, "test")
    metrics, clean = _measure(run_dir / CHECKPOINT, manifest, test, results=run_dir / "clean")
    if not force:
        _require_learned(manifest.name, clean, test)
    release = Release(
        name=manifest.name,
        files=tuple(
            FileRecord(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
            for path in sorted((run_dir / CHECKPOINT).iterdir())
        ),
        metrics=metrics,
        provenance={
            "training": outcome.environment,
            "data_digests": outcome.data_digests,
            "epochs": read_log(run_dir / LOG),
        },
    )
    with undone(*_places(manifest.name), *_places(manifest.twin)):
        return _write(manifest, release, clean, checkpoint=run_dir / CHECKPOINT)


def _require_twin(manifest: Manifest) -> None:
    try:
        manifests.resolve(manifest.twin)
    except UsageError as error:
        raise UsageError(
            f"The twin of '{manifest.name}' is to be '{manifest.twin}', and the zoo has no such entry.",
            hint=f"Write {manifests.home(manifest.name) / 'models' / manifest.twin}.toml: the same manifest, "
            "but for alpha and beta of the topography, which are 0.",
        ) from error


def _require_learned(name: str, clean: CleanVerdicts, test: Split) -> None:
    task = TASKS.load(clean.task)
    right, chance = int((clean.scores > task.floor).sum()), task.chance(test.targets(slice(None)))
    if wilson(right, clean.scores.size).low <= chance:
        raise GateError(
            f"'{name}' is no better than chance: {right:,} of {clean.scores.size:,} test images are right, "
            f"and the best constant answer gets {chance:.1%}.",
            hint="Train it longer, or with another recipe. To publish it as it is, add --force.",
        )


def _places(name: str) -> tuple[Path, ...]:
    """Everything of an entry that a release writes."""
    return (
        *(store.stored(name), verdicts.path_of(name), manifests.release_path(name)),
        paths.bundled("cards", "generated", f"{name}.md"),
    )


def _write(manifest: Manifest, release: Release, clean: CleanVerdicts, *, checkpoint: Path) -> Release:
    folder = _folder(release)
    for file in release.files:
        copy_atomic(checkpoint / file.path, folder / file.path)
    if folder != store.stored(release.name):
        _remove_embedded(release.name)
    _drop_figures(folder, release)
    verdicts.write(release.name, clean)
    about = DATASETS.load(manifest.dataset).about
    written = cards.write(manifest, release, about)
    twin = manifests.load_release(manifest.twin)
    # Its card shows the figures of this model beside its own.
    if twin is not None and twin.name != release.name and _beside(twin, release):
        cards.write(manifests.resolve(manifest.twin), twin, about)
    return written


def _folder(release: Release) -> Path:
    """Where the checkpoint goes: into the zoo folder, or the cache if it is too large for the project's."""
    own = manifests.home(release.name) == paths.bundled("zoo")
    if own and sum(file.size for file in release.files) > store.LARGEST_EMBEDDED_BYTES:
        return store.cached(release)
    return store.stored(release.name)


def _remove_embedded(name: str) -> None:
    """Remove the checkpoint of an entry that has outgrown its place: the new one is none of its files."""
    older = store.stored(name)
    if older.is_dir():
        with file_error(older):
            shutil.rmtree(older)


def _beside(one: Release, other: Release) -> bool:
    return manifests.home(one.name) == manifests.home(other.name)


def _drop_figures(folder: Path, release: Release) -> None:
    """Remove the pictures that an entry's card shows if they were drawn from other weights."""
    before = manifests.load_release(release.name)
    if before is not None and not set(release.files) <= set(before.files):
        for picture in (folder / cards.FIGURES).glob("*.png"):
            picture.unlink()


def _measure(
    checkpoint: Path, manifest: Manifest, test: Split, *, results: Path
) -> tuple[dict[str, Any], CleanVerdicts]:
    loaded = load_entries([str(checkpoint.resolve())], device=torch.device("cpu"), compiled=True)
    measured = clean_verdicts(loaded.entries, dataset=manifest.dataset, test=test, folder=results)
    (clean,) = measured.values()
    figure = TASKS.load(clean.task).figure(clean.scores)
    model, n = loaded.entries[0].model, min(MEASURED_IMAGES, len(test.labels))
    assert isinstance(model, Model), "a run trains an architecture of the registry"
    aligned = measure_alignment(
        model,
        model.sheets,
        first_images(test),
        topography=manifest.topography,
        timesteps=model.timesteps,
    )
    units = {
        "rate": (RATE_ALIGNMENT, "correlation of rate similarity with proximity"),
        "timing": ("P(r_CCG, d)", "correlation of spike-time similarity with proximity"),
    }
    metrics = {
        "clean_accuracy": {
            "value": figure.value,
            "unit": figure.unit,
            "n": figure.n,
            "interval": [figure.low, figure.high],
        },
        "parameters": {"value": sum(p.numel() for p in model.parameters()), "unit": "count"},
        **{units[part][0]: _layers(layers, units[part][1], n=n) for part, layers in aligned.items()},
    }
    if model.neurons:
        metrics["firing rate"] = {
            "unit": "spikes per unit and time step",
            "n": n,
            "layers": {
                layer: round(rate, 4)
                for layer, rate in firing_rates(model, model.sheet_layers, first_images(test)).items()
            },
        }
    return metrics, clean


def first_images(split: Split) -> Iterator[Tensor]:
    """The images on which sheets are measured, (N, C, H, W) in [0, 1], in batches."""
    for start in range(0, min(MEASURED_IMAGES, len(split.labels)), _BATCH):
        yield split.take(slice(start, min(start + _BATCH, MEASURED_IMAGES)))[0]


def _layers(values: Mapping[str, LayerAlignment], unit: str, *, n: int) -> dict[str, Any]:
    undefined = [layer for layer, value in values.items() if math.isnan(value.mean)]
    if undefined:
        raise GateError(
            f"Too few units fire in {', '.join(undefined)} to measure the topography there.",
            hint="Train it longer, or with neurons that fire more: decay_input = false in "
            "[model.arguments.neuron] of its manifest.",
        )
    found = {
        "unit": f"{unit}, mean over {NEIGHBOURHOODS} neighbourhoods",
        "n": n,
        "layers": {layer: round(value.mean, 4) for layer, value in values.items()},
        "intervals": {
            layer: [round(end, 4) for end in value.interval]
            for layer, value in values.items()
            if value.interval is not None
        },
    }
    reasons = {layer: value.reason for layer, value in values.items() if value.reason}
    return found | ({"without_interval": reasons} if reasons else {})
