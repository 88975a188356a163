"""The figures of a release are those that the benchmark and the sheets give today."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdsnn import paths
from tdsnn.bench.plan import Plan
from tdsnn.bench.runner import run_bench
from tdsnn.bench.subjects import load_subjects
from tdsnn.data._base import load_split
from tdsnn.errors import MissingError
from tdsnn.manifest import load_release, resolve
from tdsnn.results import ResultFolder
from tdsnn.train.release import alignment

EMBEDDED = sorted(path.parent.name for path in paths.bundled("zoo", "checkpoints").glob("*/config.json"))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_clean_accuracy_is_what_bench_measures(name: str, tmp_path: Path) -> None:
    release, dataset = load_release(name), resolve(name).dataset
    assert release is not None
    try:
        split = load_split(dataset, "test")
    except MissingError as error:
        pytest.skip(error.message)
    device = torch.device("cpu")
    plan = Plan(dataset=dataset, split=split, n=len(split.labels), strikes=(), device=device)
    loaded = load_subjects([name], device=device, compiled=True)
    figure = run_bench(plan, loaded.subjects, ResultFolder(tmp_path)).cells[0].accuracy
    assert figure is not None
    stored = release.metrics["clean_accuracy"]
    # Another processor may round a spike the other way; one image in ten thousand is 0.01.
    assert figure.value == pytest.approx(stored["value"], abs=0.02)
    assert figure.n == stored["n"]


@pytest.mark.parametrize("name", [name for name in EMBEDDED if resolve(name).topographic])
def test_topography_is_stronger_than_the_twins_in_every_layer(name: str) -> None:
    release, twin = load_release(name), load_release(resolve(name).twin)
    assert release is not None
    assert twin is not None
    for metric in ("P(r, d)", "P(r_CCG, d)"):
        ours, theirs = release.metrics[metric]["layers"], twin.metrics[metric]["layers"]
        assert all(ours[layer] > theirs[layer] for layer in ours)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_topography_is_what_the_release_states(name: str) -> None:
    release, manifest = load_release(name), resolve(name)
    assert release is not None
    try:
        split = load_split(manifest.dataset, "test")
    except MissingError as error:
        pytest.skip(error.message)
    model = load_subjects([name], device=torch.device("cpu"), compiled=True).subjects[0].model
    measured = alignment(model, split, manifest)
    for key, metric in (("rate", "P(r, d)"), ("timing", "P(r_CCG, d)")):
        for layer, value in release.metrics[metric]["layers"].items():
            assert measured[key][layer].mean == pytest.approx(value, abs=2e-3)
