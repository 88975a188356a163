"""From a finished run to an embedded checkpoint and its release record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdsnn import manifest as manifests
from tdsnn import paths
from tdsnn.bench.plan import Plan
from tdsnn.bench.runner import run_bench
from tdsnn.bench.subjects import load_subjects
from tdsnn.data._base import Split, load_split
from tdsnn.errors import GateError, UsageError
from tdsnn.files import copy_atomic, sha256_of, write_atomic
from tdsnn.models._base import Model
from tdsnn.results import ResultFolder
from tdsnn.topography.alignment import Alignment, LayerAlignment
from tdsnn.topography.responses import record
from tdsnn.train.loop import CHECKPOINT, LOG
from tdsnn.train.session import OUTCOME
from tdsnn.train.state import read_settings, settings_of
from tdsnn.types import FileRecord, Manifest, Release

ALIGNMENT_IMAGES = 1_000
ALIGNMENT_CLUSTERS = 50
_BATCH = 100


def embed(run_dir: Path) -> Release:
    """Measure a finished run and put it into ``zoo/checkpoints`` and ``zoo/releases`` of this checkout.

    Clean accuracy comes from the benchmark itself, over the whole test split, after its gates.

    Raises:
        UsageError: the run is not finished, or ran under other settings than its manifest has now.
        GateError: the model failed a gate, or a layer is too silent to be measured.
    """
    if not (run_dir / OUTCOME).is_file():
        raise UsageError(
            f"There is no finished run in {run_dir}.", hint="Finish it: tdsnn-zoo train NAME --resume"
        )
    outcome = json.loads((run_dir / OUTCOME).read_text(encoding="utf-8"))
    manifest = manifests.resolve(outcome["name"])
    _check_settings(run_dir, manifest)
    test = load_split(manifest.dataset, "test")
    metrics = _measure(run_dir / CHECKPOINT, manifest, test, results=run_dir / "clean")
    folder = paths.bundled("zoo", "checkpoints", manifest.name)
    for source in sorted((run_dir / CHECKPOINT).iterdir()):
        copy_atomic(source, folder / source.name)
    write_atomic(folder / "README.md", _readme(manifest, metrics).encode())
    release = Release(
        name=manifest.name,
        files=tuple(
            FileRecord(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
            for path in sorted(folder.iterdir())
        ),
        metrics=metrics,
        provenance={
            "training": outcome["environment"],
            "data_digests": outcome["data_digests"],
            "epochs": [json.loads(line) for line in (run_dir / LOG).read_text(encoding="utf-8").splitlines()],
        },
    )
    manifests.write_release(release)
    return release


def _check_settings(run_dir: Path, manifest: Manifest) -> None:
    stored = read_settings(run_dir)
    for part in ("architecture", "arguments", "dataset", "topography", "recipe"):
        if stored[part] != settings_of(manifest)[part]:
            raise UsageError(
                f"The run in {run_dir} used another {part} than zoo/models/{manifest.name}.toml states.",
                hint="Write the values of the run into the manifest, or train again.",
            )


def _measure(checkpoint: Path, manifest: Manifest, test: Split, *, results: Path) -> dict[str, Any]:
    device = torch.device("cpu")
    loaded = load_subjects([str(checkpoint.resolve())], device=device, compiled=True)
    plan = Plan(dataset=manifest.dataset, split=test, n=len(test.labels), strikes=(), device=device)
    (cell,) = run_bench(plan, loaded.subjects, ResultFolder(results)).cells
    if cell.accuracy is None:
        raise GateError(f"The clean accuracy of {manifest.name} could not be measured: {cell.error}.")
    figure = cell.accuracy
    model = loaded.subjects[0].model
    rate, timing = alignment(model, test, manifest).values()
    return {
        "clean_accuracy": {
            "value": figure.value,
            "unit": "%",
            "n": len(test.labels),
            "interval": [figure.low, figure.high],
        },
        "parameters": {"value": sum(p.numel() for p in model.parameters()), "unit": "count"},
        "P(r, d)": _layers(rate, "correlation of rate similarity with proximity"),
        "P(r_CCG, d)": _layers(timing, "correlation of spike-time similarity with proximity"),
    }


def alignment(model: Model, test: Split, manifest: Manifest) -> dict[str, dict[str, LayerAlignment]]:
    """P(r, d) and P(r_CCG, d) of each sheet on the first test images, on the manifest's neighbourhoods."""
    topography = manifest.topography
    measured = Alignment(
        model.sheets,
        clusters=ALIGNMENT_CLUSTERS,
        units=topography.cluster_units,
        window=topography.window,
        seed=topography.sheet_seed,
    )
    for start in range(0, min(ALIGNMENT_IMAGES, len(test.labels)), _BATCH):
        images = torch.from_numpy(np.array(test.images[start : start + _BATCH])).float().div_(255)
        with torch.no_grad(), record(model, model.sheet_layers) as outputs:
            model(images)
        measured.update(outputs)
    return measured.compute()


def _layers(values: dict[str, LayerAlignment], unit: str) -> dict[str, Any]:
    undefined = [layer for layer, value in values.items() if math.isnan(value.mean)]
    if undefined:
        raise GateError(f"Too few units fire in {', '.join(undefined)} to measure the topography there.")
    return {
        "unit": f"{unit}, mean over {ALIGNMENT_CLUSTERS} neighbourhoods",
        "n": ALIGNMENT_IMAGES,
        "layers": {layer: round(value.mean, 4) for layer, value in values.items()},
        "intervals": {layer: [round(value.low, 4), round(value.high, 4)] for layer, value in values.items()},
    }


def _readme(manifest: Manifest, metrics: dict[str, Any]) -> str:
    accuracy = metrics["clean_accuracy"]
    low, high = accuracy["interval"]
    return f"""# {manifest.name}

{manifest.summary}

- Twin: `{manifest.twin}`, the same recipe, seed and data order.
- Clean accuracy on the {accuracy["n"]:,} test images of {manifest.dataset}: {accuracy["value"]:.2f} %
  (95 % interval {low:.2f} to {high:.2f}).
- Licence: {manifest.licence}. Please cite {manifest.citation}.

```python
import tdsnn

model = tdsnn.load("{manifest.name}")  # logits = model(images), images (N, C, H, W) in [0, 1]
```
"""
