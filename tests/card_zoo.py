"""A made-up zoo of a topographic model and its twin with result documents, for tests of model cards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from maps import sheet
from msgspec.structs import replace
from toys import Linear, flat, split

from tdsnn import paths
from tdsnn.attacks._spec import attack_specs
from tdsnn.benchmark.plan import ModelEntry, Plan
from tdsnn.benchmark.runner import run_bench
from tdsnn.manifest import load_release, resolve, write_release
from tdsnn.maps.survey import SHUFFLED, Entry, Survey
from tdsnn.metrics._base import Figure, Measurement
from tdsnn.report import cards
from tdsnn.result_folder import ResultFolder
from tdsnn.schema import About, FileRecord, Release

TOPO, TWIN = "topo.toys", "plain.toys"
LAYER = "layer1.0"
DATASET = About(repo="owner/toys", title="Toys", shape=(1, 16, 16))
MANIFEST = """
summary = "{summary}"
twin = "{twin}"
citation = "arXiv:2508.04270"
notes = '''{notes}'''
[model]
architecture = "sresnet18"
[model.arguments]
width = 8
timesteps = 4
in_channels = 1
[data]
name = "toys"
[topography]
alpha = {alpha}
beta = {alpha}
[recipe]
seed = 7
epochs = 2
"""


def epoch(number: int, **figures: Any) -> dict[str, Any]:
    return {"epoch": number, "step": 9, "lr": 1e-3, "seconds_left": 3.0, "task": 0.9 - number / 4, **figures}


def _release(name: str, *, right: float, layers: dict[str, float], weights: str, **figures: Any) -> Release:
    return Release(
        name=name,
        files=(FileRecord(path="model.safetensors", size=3, sha256=weights),),
        metrics={
            "clean_accuracy": {
                "value": right,
                "unit": "%",
                "n": 10000,
                "interval": [right - 0.55, right + 0.5],
            },
            "parameters": {"value": 1234567, "unit": "count"},
            "P(r, d)": {
                "unit": "correlation",
                "n": 1000,
                "layers": layers,
                "intervals": {layer: [value - 0.02, value + 0.02] for layer, value in layers.items()},
            },
        },
        provenance={"epochs": [epoch(0, **figures), epoch(1, **figures)], "training": {"python": "3.11"}},
    )


RELEASES = {
    TOPO: _release(TOPO, right=91.25, layers={LAYER: 0.3088}, weights="a" * 64, L_L=3.25, masked=0.125),
    TWIN: _release(TWIN, right=92.5, layers={LAYER: -0.0003}, weights="b" * 64),
}


def build_pair(project: Path) -> Path:
    """A zoo of a topographic model and its twin, both released, and the real templates."""
    checkout = Path(paths.__file__).resolve().parents[1]
    shutil.copytree(checkout / "cards" / "templates", project / "cards" / "templates")
    write_manifest(project, TOPO, twin=TWIN, alpha="0.03")
    write_manifest(project, TWIN, twin=TOPO, alpha="0.0")
    for release in RELEASES.values():
        write_release(release)
    return project


def write_manifest(
    project: Path, name: str, *, twin: str, alpha: str, summary: str = "A toy.", notes: str = ""
) -> None:
    text = MANIFEST.format(summary=summary, twin=twin, alpha=alpha, notes=notes)
    (project / "zoo" / "models" / f"{name}.toml").write_text(text, encoding="utf-8")


def card(name: str = TOPO, **changes: Any) -> cards.Card:
    release = load_release(name)
    assert release is not None
    return cards.render(resolve(name), release, replace(DATASET, **changes))


def document(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def bench(project: Path, tmp_path: Path, *, stem: str = "one", **weights: str) -> dict[str, Any]:
    """A benchmark of a model without a gradient and one with, under the zoo's names and the given weights."""
    ours, theirs = weights.get("ours", "a" * 64), weights.get("theirs", "b" * 64)
    entries = [
        ModelEntry(name=TOPO, model=flat(), checkpoint_sha256=ours, source="path", twin=TWIN),
        ModelEntry(name=TWIN, model=Linear(), checkpoint_sha256=theirs, source="path"),
    ]
    attacks = attack_specs(["pgd", "gaussian"], eps=[64, 96])
    plan = Plan(dataset="toys", split=split(Linear(), 40), n=40, attacks=attacks)
    result = run_bench(plan, entries, ResultFolder(tmp_path / stem)).document()
    document(project / "benchmarks" / "results" / "bench" / f"{stem}.json", result)
    return result


def survey(**changes: Any) -> dict[str, Any]:
    """A survey of one layer: orientation of all subjects, correlation refused for the twin."""
    subjects = (TOPO, f"{TWIN} (twin)", SHUFFLED)

    def entry(subject: str, metric: str, key: str, value: float) -> Entry:
        figure = Figure(value=value, low=value - 0.1, high=value + 0.1, unit="", n=500)
        return Entry(
            subject=subject, layer=LAYER, metric=metric, measurement=Measurement(figures={key: figure})
        )

    values = zip(subjects, (0.41, 0.12, 0.03), strict=True)
    entries = [entry(subject, "orientation", "smoothness", value) for subject, value in values]
    entries += [
        entry(TOPO, "correlation_distance", "decay", 0.18),
        Entry(subject=subjects[1], layer=LAYER, metric="correlation_distance", error="All respond | alike."),
        entry(SHUFFLED, "correlation_distance", "decay", -0.001),
    ]
    found = Survey(
        subjects=subjects,
        sheets={LAYER: sheet()},
        shuffled={LAYER: sheet()},
        entries=tuple(entries),
        shown={"gratings": 64},
        missing={"floc": "they are not in this folder"},
        seed=3,
    )
    return found.document() | changes


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows of a card."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def row(text: str, *first: str) -> list[str]:
    (found,) = [cells for cells in rows(text) if tuple(cells[: len(first)]) == first]
    return found[len(first) :]
