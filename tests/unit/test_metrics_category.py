"""Category selectivity on sheets whose regions are known."""

from __future__ import annotations

import dataclasses
import math

import maps
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tdsnn.errors import GateError, UsageError
from tdsnn.metrics._decoding import decode
from tdsnn.metrics._factors import levels_of
from tdsnn.metrics._selectivity import t_values
from tdsnn.metrics.category import Category
from tdsnn.metrics.category_smoothness import CategorySmoothness
from tdsnn.metrics.overlap import Overlap, spearman
from tdsnn.metrics.patches import Patches


@pytest.fixture(scope="module")
def sheet() -> maps.CorticalSheet:
    return maps.sheet()


@pytest.fixture(scope="module")
def given(sheet: maps.CorticalSheet) -> maps.Responses:
    return maps.ordered_categories(sheet)


def literal_t(rates, labels, category):
    """t of each unit by the definition, unit by unit."""
    found = []
    for response in rates.T:
        on, off = response[labels == category], response[labels != category]
        error = np.var(on) / len(on) + np.var(off) / len(off)
        found.append((on.mean() - off.mean()) / math.sqrt(error) if error else 0.0)
    return found


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_t_equals_the_literal_one(offset: float) -> None:
    """Also far from zero, where a careless variance loses its digits."""
    stimuli = maps.floc(6)
    generator = np.random.default_rng(0)
    rates = generator.integers(0, 5, (len(stimuli.images), 30)) / 4 + offset
    labels = stimuli.factors["category"].numpy()
    rates[:, 0] = offset
    rates[:, 1] = labels == 2
    before = rates.copy()
    _, shows = levels_of(stimuli, "category")
    once = torch.ones(1, len(rates), dtype=torch.float64)
    found = t_values(torch.from_numpy(rates), shows, once)[0].numpy()
    expected = [literal_t(rates, labels, category) for category in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    assert np.array_equal(rates, before), "the responses are left as they were"
    assert found[2, 1] == 0, "by definition, where nothing varies within the groups"


def test_t_of_counted_images_is_that_of_repeated_images() -> None:
    stimuli = maps.floc(4)
    generator = np.random.default_rng(1)
    rates = generator.random((len(stimuli.images), 12))
    counts = generator.integers(0, 3, len(rates))
    _, shows = levels_of(stimuli, "category")
    found = t_values(torch.from_numpy(rates), shows, torch.from_numpy(counts)[None].double())[0, 3]
    labels = stimuli.factors["category"].numpy()
    repeated = np.repeat(np.arange(len(rates)), counts)
    np.testing.assert_allclose(found, literal_t(rates[repeated], labels[repeated], 3), rtol=1e-9)


def test_readout_is_right_where_categories_are_far_apart(given: maps.Responses) -> None:
    _, shows = levels_of(given.stimuli, "category")
    assert torch.equal(decode(given.rates, shows, seed=0), given.stimuli.factors["category"])


def test_readout_never_saw_the_image_it_judges() -> None:
    """4,000 units of noise tell 200 images apart; a readout that saw them would be right every time."""
    stimuli = maps.floc()
    rates = torch.rand(len(stimuli.images), 4000, generator=torch.Generator().manual_seed(0))
    _, shows = levels_of(stimuli, "category")
    right = float((decode(rates, shows, seed=0) == stimuli.factors["category"]).float().mean())
    assert right < 0.35


@pytest.mark.parametrize("metric", [Category(), CategorySmoothness(), Patches(), Overlap()])
def test_undecodable_layers_are_refused(metric, sheet: maps.CorticalSheet) -> None:
    noise = maps.to_categories(sheet, np.zeros((5, len(sheet.positions))))
    with pytest.raises(GateError, match="cannot be read out"):
        metric.measure(noise, sheet)


@pytest.mark.parametrize("metric", [Category(), CategorySmoothness(), Patches(), Overlap()])
def test_equally_selective_units_are_refused(
    metric, sheet: maps.CorticalSheet, given: maps.Responses
) -> None:
    """Every unit answers to faces most: a map of one value, which would score as perfectly smooth."""
    one = given.rates[:, (maps.regions(sheet).argmax(1) == 0).argmax()].clone()
    one += 0.2 * given.stimuli.factors["category"]
    with pytest.raises(GateError, match="equally selective"):
        metric.measure(dataclasses.replace(given, rates=one[:, None].expand_as(given.rates)), sheet)


def test_category_maps_and_shares(sheet: maps.CorticalSheet, given: maps.Responses) -> None:
    found = Category().measure(given, sheet)
    assert found.figures["decoding"].value == 1
    assert found.figures["chance"].value == 0.2
    regions = maps.regions(sheet)
    for region, category in zip(regions, maps.CATEGORIES, strict=True):
        drawn = found.maps[category]
        assert drawn.kind == "contrast"
        selective = drawn.values.numpy() > 4
        assert (selective == region.astype(bool)).mean() > 0.97
        assert found.figures[category].value == selective.mean()


def test_silent_units_have_no_selectivity(sheet: maps.CorticalSheet, given: maps.Responses) -> None:
    rates = given.rates.clone()
    rates[:, ::2] = 0
    found = Category().measure(dataclasses.replace(given, rates=rates), sheet)
    values = found.maps["faces"].values
    assert values[::2].isnan().all()
    assert values[1::2].isfinite().all()
    assert found.figures["faces"].n == values[1::2].numel()


def test_regions_are_smooth_and_noise_is_not(sheet: maps.CorticalSheet, given: maps.Responses) -> None:
    found = CategorySmoothness().measure(given, sheet)
    assert found.figures["smoothness"].low > found.figures["shuffled"].high + 0.3
    assert set(maps.CATEGORIES) < set(found.figures)
    curve = found.curves["faces"]
    assert curve.y[0] < 0.6
    assert curve.x[-1] == pytest.approx(2 * 60 / 31.818 * 8.5 / 9)
    scattered = (np.random.default_rng(0).random((5, len(sheet.positions))) < 0.1).astype(float)
    found = CategorySmoothness().measure(maps.to_categories(sheet, scattered), sheet)
    assert found.figures["smoothness"].value == pytest.approx(found.figures["shuffled"].value, abs=0.05)
    assert np.mean(found.curves["faces"].y) == pytest.approx(1, abs=0.05)


def test_patches_of_a_known_layout(sheet: maps.CorticalSheet, given: maps.Responses) -> None:
    figures = Patches().measure(given, sheet).figures
    assert figures["patches"].value == 5
    assert figures["shuffled"].value == 0
    radius, sigma = maps.RADIUS * maps.SIZE_MM, 2.4 / 70 * maps.SIZE_MM
    for category in maps.CATEGORIES:
        assert figures[category].value == 1
        # The Gaussian widens a region until its t of about 20 has fallen to 2, 1.3 sigma off a straight edge.
        assert math.pi * radius**2 < figures[f"{category}_area"].value < math.pi * (radius + 1.3 * sigma) ** 2
    total = sum(figures[f"{category}_area"].value for category in maps.CATEGORIES)
    assert figures["area"].value == pytest.approx(total)
    assert figures["area"].low <= figures["area"].value < figures["area"].high


def test_two_regions_are_two_patches_and_specks_are_none(sheet: maps.CorticalSheet) -> None:
    x, y = (axis / maps.SIZE_MM for axis in maps.places(sheet))
    preferred = maps.regions(sheet)
    preferred[0] = (np.hypot(x - 0.2, y - 0.5) < 0.12) | (np.hypot(x - 0.8, y - 0.5) < 0.12)
    preferred[1] = np.hypot(x - 0.5, y - 0.5) < 0.03
    found = maps.values(Patches(), maps.to_categories(sheet, preferred), sheet)
    assert (found["faces"], found["bodies"]) == (2, 0)
    assert found["bodies_area"] == 0


def test_scattered_units_form_no_patches(sheet: maps.CorticalSheet) -> None:
    scattered = (np.random.default_rng(0).random((5, len(sheet.positions))) < 0.05).astype(float)
    assert maps.values(Patches(), maps.to_categories(sheet, scattered), sheet)["patches"] == 0


def test_spearman_equals_scipy() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 6, (2, 20, 40)).astype(float)
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected)


def test_overlap_of_shared_and_separate_halves(sheet: maps.CorticalSheet) -> None:
    x, y = maps.places(sheet)
    generator = np.random.default_rng(0)
    preferred = (generator.random((5, len(x))) < 0.5).astype(float)
    preferred[0] *= x < maps.SIZE_MM / 2
    preferred[1] *= x < maps.SIZE_MM / 2
    preferred[2] *= y < maps.SIZE_MM / 2
    preferred[3] *= y >= maps.SIZE_MM / 2
    figures = Overlap().measure(maps.to_categories(sheet, preferred), sheet).figures
    assert figures["faces_bodies"].low > 0.5
    assert figures["characters_places"].high < -0.5
    for name in ("faces_bodies", "characters_places"):
        rho, scaled = figures[name], figures[f"{name}_scaled"]
        assert scaled.value == pytest.approx((1 + rho.value) / 2)
        assert rho.n == 100
        assert figures[f"{name}_shuffled"].n == 20
    shuffled = figures["faces_bodies_shuffled"], figures["characters_places_shuffled"]
    assert figures["faces_bodies"].low > shuffled[0].high
    assert figures["characters_places"].high < shuffled[1].low


def test_overlap_needs_selective_units(sheet: maps.CorticalSheet) -> None:
    preferred = maps.regions(sheet)
    preferred[1] = 0
    with pytest.raises(GateError, match="selective for bodies"):
        Overlap().measure(maps.to_categories(sheet, preferred), sheet)


def test_overlap_needs_windows() -> None:
    small = maps.sheet(shape=(200, 1, 1))
    with pytest.raises(GateError, match="hold 6 responding units"):
        Overlap().measure(maps.ordered_categories(small), small)


def test_overlap_needs_its_categories(sheet: maps.CorticalSheet, given: maps.Responses) -> None:
    levels = dict(given.stimuli.levels) | {"category": ("faces", "bodies", "letters", "places", "objects")}
    stimuli = dataclasses.replace(given.stimuli, levels=levels)
    with pytest.raises(UsageError, match="no category 'characters'"):
        Overlap().measure(dataclasses.replace(given, stimuli=stimuli), sheet)
