"""What becomes of finished runs: releases of the zoo, and a document of those that tried other settings.

``results.json`` beside the run folders, schema 1 (official copies are in ``benchmarks/results/sweeps``)::

    schema, sweep, summary
    runs    one record for each finished run with settings or a label of its own: entry, seed, label,
            settings, held_out_accuracy (value, low, high, n), alignment (layer to P(r, d) and P(r_CCG, d) on
            the first held-out images), firing_rate (layer to spikes per unit and step on them; null without
            spikes), category_smoothness (layer to value; null without its images), cpu_seconds,
            weights_sha256 and environment
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from shlex import quote
from typing import Any

from tdsnn import manifest as manifests
from tdsnn import store, zoo
from tdsnn.data._base import DATASETS, load_training
from tdsnn.errors import IntegrityError, MissingError, TdsnnError, UsageError
from tdsnn.files import read_json, sha256_of, write_atomic
from tdsnn.maps.survey import survey
from tdsnn.models._base import Model
from tdsnn.progress import Note
from tdsnn.publish.release import first_images, register_run
from tdsnn.results import accuracy_figure
from tdsnn.schema import plain
from tdsnn.sweep.plan import Run, Sweep
from tdsnn.sweep.state import read_states
from tdsnn.topography.alignment import firing_rates, measure_alignment
from tdsnn.training.state import CHECKPOINT, read_outcome
from tdsnn.weights import WEIGHTS_FILE

_SCHEMA = 1
RESULTS = "results.json"
_SMOOTHNESS = "category_smoothness"
_SUBJECT = "run"


def release_finished(sweep: Sweep, *, note: Note) -> dict[str, Any]:
    """Release every finished run that is its entry unchanged, and measure the others on the held-out images.

    What was released or measured before, from the same weights, is not done again. A run that cannot be
    released does not keep the others back.

    Returns:
        ``released`` and ``measured``, names of runs done now, and ``failed``, name to sentence.

    Raises:
        UsageError: no run is finished.
        IntegrityError: the document of earlier measurements is damaged.
    """
    states = read_states(sweep.runs)
    finished = [run for run in sweep.runs if states[run.name].kind == "done"]
    if not finished:
        raise UsageError(
            f"No run of '{sweep.path}' is finished.",
            hint=f"tdsnn-zoo sweep {quote(str(sweep.path))} --status",
        )
    done: dict[str, Any] = {"released": [], "measured": [], "failed": {}}
    entries = [run for run in finished if not run.label and _is_its_entry(run)]
    # A topographic entry is measured beside its twin, so the twin goes first.
    for run in sorted(entries, key=lambda run: run.manifest.topographic):
        try:
            if _released(run):
                continue
            manifests.require_writable(run.entry)
            accuracy = register_run(run.folder).metrics["clean_accuracy"]
            note(f"{run.name}: {accuracy['value']:.2f} % of {accuracy['n']:,} test images, released")
            done["released"].append(run.name)
        except TdsnnError as error:
            note(f"{run.name} was not released: {error.message}")
            done["failed"][run.name] = error.message
    others = [run for run in finished if run not in entries]
    if others:
        _measure_others(sweep, others, done=done, note=note)
    return done


def _is_its_entry(run: Run) -> bool:
    return run.manifest == manifests.complete(manifests.resolve(run.entry))


def _released(run: Run) -> bool:
    release = manifests.load_release(run.entry)
    return release is not None and release.weights_sha256 == sha256_of(run.folder / CHECKPOINT / WEIGHTS_FILE)


def _measure_others(sweep: Sweep, runs: list[Run], *, done: dict[str, Any], note: Note) -> None:
    path = sweep.folder / RESULTS
    known = _stored(path)
    for run in runs:
        try:
            location = store.locate(run.folder / CHECKPOINT)
            if known.get(run.name, {}).get("weights_sha256") == location.weights.sha256:
                continue
            known[run.name] = _record(run, location.weights.sha256)
        except TdsnnError as error:
            note(f"{run.name} was not measured: {error.message}")
            done["failed"][run.name] = error.message
            continue
        done["measured"].append(run.name)
        accuracy = known[run.name]["held_out_accuracy"]["value"]
        note(f"{run.name}: {accuracy:.2f} % of the held-out images")
        # After each run: measuring one takes a minute.
        document = {
            "schema": _SCHEMA,
            "sweep": sweep.name,
            "summary": sweep.summary,
            "runs": [known[name] for name in sorted(known)],
        }
        write_atomic(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def _record(run: Run, sha256: str) -> dict[str, Any]:
    outcome = read_outcome(run.folder)
    assert outcome is not None, "the run is finished"
    if outcome.held_out_accuracy is None:
        raise UsageError(
            f"The run '{run.name}' was never measured on held-out images.",
            hint=f"Train it anew: rm -r {quote(str(run.folder))} and tdsnn-zoo sweep FILE",
        )
    _, held_out = load_training(run.manifest.dataset)
    model = zoo.load(run.folder / CHECKPOINT, compile=True)
    right = round(outcome.held_out_accuracy * outcome.n)
    found = measure_alignment(
        model,
        model.sheets,
        first_images(held_out),
        topography=run.manifest.topography,
        timesteps=model.timesteps,
    )
    rates = firing_rates(model, model.sheet_layers, first_images(held_out)) if model.neurons else None
    entry, seed = manifests.entry_and_seed(run.entry)
    return {
        "run": run.name,
        "entry": entry,
        "seed": seed,
        "label": run.label,
        "settings": list(run.settings),
        "held_out_accuracy": plain(accuracy_figure(right, outcome.n)),
        "alignment": {
            part: {layer: _finite(value.mean) for layer, value in layers.items()}
            for part, layers in found.items()
        },
        "firing_rate": rates and {layer: round(rate, 4) for layer, rate in rates.items()},
        _SMOOTHNESS: _smoothness(model, shape=DATASETS.load(run.manifest.dataset).shape),
        "cpu_seconds": outcome.cpu_seconds,
        "weights_sha256": sha256,
        "environment": outcome.environment,
    }


def _finite(value: float) -> float | None:
    """Four digits, or None where too few units fire."""
    return round(value, 4) if math.isfinite(value) else None


def _smoothness(model: Model, *, shape: tuple[int, int, int]) -> dict[str, float] | None:
    """Layer to smoothness of its category maps, silent layers left out; None without the images.

    Args:
        shape: (C, H, W) of the images that the model takes.
    """
    try:
        found = survey({_SUBJECT: model}, model.sheets, shape=shape, metrics=[_SMOOTHNESS])
    except MissingError:
        return None
    return {
        layer: round(measurements[_SUBJECT].figures["smoothness"].value, 4)
        for layer in model.sheets
        if _SUBJECT in (measurements := found.find(layer, _SMOOTHNESS))
    }


def _stored(path: Path) -> dict[str, dict[str, Any]]:
    """Name of a run to its record."""
    try:
        document = read_json(path)
        if document["schema"] != _SCHEMA:
            raise ValueError(f"it is not of schema {_SCHEMA}")
        return {record["run"]: record for record in document["runs"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"The document '{path}' is damaged: {error}.", hint=f"Restore it: git checkout {quote(str(path))}"
        ) from error
