"""Alignment and firing rates of layers: over how many images, and when there is an interval."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from networks import network, pictures
from numpy.testing import assert_array_equal

from tdsnn import zoo
from tdsnn.data._base import Split
from tdsnn.models._base import Model
from tdsnn.publish import release as releases
from tdsnn.schema import Topography
from tdsnn.topography.alignment import (
    LARGEST_SHARE,
    NEIGHBOURHOODS,
    LayerAlignment,
    firing_rates,
    measure_alignment,
)
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.preparation import fresh_sheets
from tests.training import make_split, small

pytestmark = pytest.mark.usefixtures("threads")

UNITS = 16
"""In a neighbourhood; the last layers of a network of width 4 have 32 x 2 x 2 = 128 units and more."""


@pytest.fixture(scope="module")
def model() -> Model:
    made = network("sresnet18", width=4, timesteps=3, in_channels=1, mean=[0.286], std=[0.353])
    made.sheets = fresh_sheets(made, made.sheet_specs.values(), Topography(), image_shape=(1, 16, 16))
    return made


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


def aligned(
    model: Model, split: Split, *layers: str, units: int, timesteps: int = 3
) -> dict[str, dict[str, LayerAlignment]]:
    return measure_alignment(
        model,
        {layer: model.sheets[layer] for layer in layers or model.sheets},
        releases.first_images(split),
        topography=Topography(cluster_units=units),
        timesteps=timesteps,
    )


def test_every_layer_has_a_mean_and_an_interval_around_it(model: Model, split: Split) -> None:
    found = aligned(model, split, units=UNITS)
    assert found.keys() == {"rate", "timing"}
    assert aligned(model, split, units=UNITS, timesteps=1).keys() == {"rate"}
    for layers in found.values():
        assert layers.keys() == model.sheets.keys()
        for layer in layers.values():
            assert layer.interval is not None
            low, high = layer.interval
            assert low < layer.mean < high
            assert 2 <= layer.clusters <= NEIGHBOURHOODS
            assert not layer.reason


def test_neighbourhoods_of_most_units_have_no_interval(model: Model, split: Split) -> None:
    """All of them are nearly the same, so that how they scatter would look like certainty."""
    for units in (100, 500):
        for layer, found in aligned(model, split, "layer3.1", "layer4.1", units=units)["rate"].items():
            total = len(model.sheets[layer].positions)
            assert (found.interval is None) == (min(units, total) > LARGEST_SHARE * total), layer
            if found.interval is None:
                assert (
                    found.reason
                    == f"all neighbourhoods are alike, with {min(units, total)} of the sheet's {total} units"
                )
                assert -1 <= found.mean <= 1


def test_rates_are_means_over_units_steps_and_images(model: Model) -> None:
    batches = pictures(9)[:, :1].split(4)
    rates = firing_rates(model, model.sheet_layers, batches)
    whole = firing_rates(model, [SheetSpec("layer2.1", 1.0)], [torch.cat(batches)])
    assert rates.keys() == set(model.sheet_layers)
    assert rates["layer2.1"] == pytest.approx(whole["layer2.1"], abs=1e-6)
    assert all(0 < rate < 1 for rate in rates.values())


def test_the_first_images_are_at_most_a_thousand(split: Split) -> None:
    many = dataclasses.replace(split, images=split.images.repeat(23, 0), labels=split.labels.repeat(23, 0))
    shown = torch.cat(list(releases.first_images(many)))
    assert len(shown) == releases.MEASURED_IMAGES < len(many.labels)
    assert_array_equal((shown * 255).round().numpy(), many.images[:1000])
    assert len(torch.cat(list(releases.first_images(split)))) == 50


def test_a_release_states_what_it_was_measured_on(
    model: Model, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count of images, and why a layer has no interval."""
    monkeypatch.setattr(type(model), "compile_operators", lambda model: False)
    zoo.save(model, tmp_path / "checkpoint", name="sresnet18.fashion_mnist", dataset="fashion_mnist")
    manifest = small("topography.cluster_units=100", name="sresnet18")
    metrics, _ = releases._measure(tmp_path / "checkpoint", manifest, split, results=tmp_path / "clean")
    measured = [metric for metric in metrics.values() if "layers" in metric]
    assert len(measured) == 3
    assert {metric["n"] for metric in measured} == {50}
    for name in ("P(r, d)", "P(r_CCG, d)"):
        metric = metrics[name]
        assert metric["without_interval"] == dict.fromkeys(
            ("layer4.0", "layer4.1"), "all neighbourhoods are alike, with 100 of the sheet's 128 units"
        )
        assert metric["intervals"].keys() | metric["without_interval"].keys() == metric["layers"].keys()
        assert all(low < high for low, high in metric["intervals"].values())
