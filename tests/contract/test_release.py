"""The figures of a release are those that the benchmark and the sheets give today."""

from __future__ import annotations

import pytest
import torch

from tdsnn import paths, verdicts
from tdsnn.benchmark.entries import load_entries
from tdsnn.data._base import load_split
from tdsnn.errors import MissingError
from tdsnn.manifest import entry_and_seed, load_release, resolve
from tdsnn.publish.release import first_images
from tdsnn.topography.alignment import measure_alignment

IMAGES = 300
EMBEDDED = sorted(path.parent.name for path in paths.bundled("zoo", "checkpoints").glob("*/config.json"))
FIRST_SEEDS = [name for name in EMBEDDED if not entry_and_seed(name)[1]]


def kind_of(name: str) -> tuple[object, ...]:
    """What decides which code measures an entry; its weights have a digest."""
    manifest = resolve(name)
    return (
        manifest.architecture,
        manifest.topographic,
        manifest.topography.loss,
        manifest.topography.preparation,
    )


ONE_OF_EACH_KIND = sorted({kind_of(name): name for name in reversed(FIRST_SEEDS)}.values())


def shaped_on_its_sheets(name: str) -> bool:
    """TopoLoss orders channels on a grid of its own, which says nothing about the sheets."""
    manifest = resolve(name)
    return manifest.topographic and manifest.topography.loss != "topoloss"


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_SEEDS)
def test_stored_verdicts_are_what_the_network_gives(name: str) -> None:
    release, dataset = load_release(name), resolve(name).dataset
    assert release is not None
    try:
        split = load_split(dataset, "test")
    except MissingError as error:
        pytest.skip(error.message)
    stored = verdicts.read(release)
    assert stored is not None
    assert stored.data_digest == split.digest
    assert 100 * stored.scores.mean() == pytest.approx(release.metrics["clean_accuracy"]["value"])
    model = load_entries([name], device=torch.device("cpu"), compiled=True).entries[0].model
    images, labels = split.take(slice(0, IMAGES))
    with torch.no_grad():
        right = torch.cat([model(part) for part in images.split(100)]).argmax(1) == labels
    # Another processor may round a spike the other way.
    assert int((right.numpy() != stored.scores[:IMAGES]).sum()) <= 1


@pytest.mark.parametrize("name", [name for name in EMBEDDED if shaped_on_its_sheets(name)])
def test_topography_is_stronger_than_the_twins_in_every_layer(name: str) -> None:
    release, twin = load_release(name), load_release(resolve(name).twin)
    assert release is not None
    assert twin is not None
    # Without time steps there is no second.
    for metric in {"P(r, d)", "P(r_CCG, d)"} & release.metrics.keys():
        ours, theirs = release.metrics[metric]["layers"], twin.metrics[metric]["layers"]
        assert all(ours[layer] > theirs[layer] for layer in ours)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_topography_is_what_the_release_states(name: str) -> None:
    release, manifest = load_release(name), resolve(name)
    assert release is not None
    try:
        split = load_split(manifest.dataset, "test")
    except MissingError as error:
        pytest.skip(error.message)
    model = load_entries([name], device=torch.device("cpu"), compiled=True).entries[0].model
    measured = measure_alignment(
        model,
        model.sheets,
        first_images(split),
        topography=manifest.topography,
        timesteps=model.timesteps,
    )
    metrics = {"rate": "P(r, d)", "timing": "P(r_CCG, d)"}
    for key, layers in measured.items():
        for layer, value in release.metrics[metrics[key]]["layers"].items():
            assert layers[layer].mean == pytest.approx(value, abs=2e-3)
