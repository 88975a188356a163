"""Coincident spikes against distance: trains whose synchrony is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from tdsnn.temporal._coincidences import Pairs, autocorrelograms, draw_pairs, synchrony
from tdsnn.topography.losses.stc import lag_kernel


def all_pairs(units: int) -> Pairs:
    first, second = np.triu_indices(units, 1)
    return Pairs(first, second, np.zeros(len(first), dtype=np.int64))


def bernoulli(images: int, steps: int, units: int, *, rate: float = 0.3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, steps, units, generator=generator) < rate


def literal(spikes: Tensor, lag: int) -> Tensor:
    """CCG of all pairs as STC's formula has it: sums over lags, images and steps, one by one."""
    images, steps, units = spikes.shape
    found = torch.zeros(images, units, units, dtype=torch.float64)
    values = spikes.double()
    for shift in range(-lag, lag + 1):
        for step in range(steps):
            if 0 <= step + shift < steps:
                pairs = values[:, step, :, None] * values[:, step + shift, None, :]
                found += pairs / (steps - abs(shift))
    return found


def test_the_cross_correlogram_is_that_of_the_formula() -> None:
    spikes = bernoulli(3, 4, 4)
    spikes[:, 0] = True
    ccg = literal(spikes, 1)
    own = ccg.mean(0).diagonal()
    observed, _ = synchrony(spikes, all_pairs(4), lag_kernel(4, window=1, shape="flat"), bins=1)
    first, second = np.triu_indices(4, 1)
    expected = (ccg / (own[:, None] * own[None]).sqrt())[:, first, second].mean(1)
    assert observed[:, 0] == pytest.approx(expected.numpy())


def test_the_control_is_the_mean_of_all_shuffles() -> None:
    """Every order of the steps of one unit against the other's; of each unit alone for its own."""
    spikes = bernoulli(2, 3, 2, rate=0.5, seed=1)
    spikes[0, 0] = True
    orders = [list(order) for order in itertools.permutations(range(3))]
    kernel = lag_kernel(3, window=1, shape="flat")
    shuffles = [
        torch.stack([spikes[:, one, 0], spikes[:, other, 1]], 2)
        for one, other in itertools.product(orders, orders)
    ]
    ccg = torch.stack([literal(one, 1) for one in shuffles]).mean(0)
    own = ccg.mean(0).diagonal()
    assert autocorrelograms(spikes, kernel)[1].numpy() == pytest.approx(own.numpy())
    _, shuffled = synchrony(spikes, all_pairs(2), kernel, bins=1)
    assert shuffled[:, 0] == pytest.approx((ccg[:, 0, 1] / (own[0] * own[1]).sqrt()).numpy())


def test_independent_trains_are_as_synchronous_as_their_shuffles() -> None:
    spikes = bernoulli(400, 4, 12)
    observed, shuffled = synchrony(spikes, all_pairs(12), lag_kernel(4, window=1, shape="flat"), bins=1)
    assert observed.mean() == pytest.approx(shuffled.mean(), rel=0.01)
    assert shuffled.mean() > 0.2, "rates alone make coincidences"


def test_copies_of_one_train_are_maximally_synchronous() -> None:
    spikes = bernoulli(50, 6, 1).expand(-1, -1, 5)
    observed, shuffled = synchrony(spikes, all_pairs(5), lag_kernel(6, window=1, shape="flat"), bins=1)
    assert observed.mean() == pytest.approx(1.0)
    assert shuffled.mean() < 0.9


def test_shared_rates_without_shared_timing_are_no_synchrony() -> None:
    """Counts that go up and down together over images raise the control as much as what is seen."""
    generator = torch.Generator().manual_seed(0)
    rates = torch.rand(600, 1, 1, generator=generator)
    spikes = torch.rand(600, 4, 10, generator=generator) < rates
    kernel = lag_kernel(4, window=1, shape="flat")
    observed, shuffled = synchrony(spikes, all_pairs(10), kernel, bins=1)
    independent, _ = synchrony(bernoulli(600, 4, 10, rate=0.5), all_pairs(10), kernel, bins=1)
    assert observed.mean() > independent.mean() + 0.05
    assert observed.mean() == pytest.approx(shuffled.mean(), rel=0.02)


def test_one_step_has_no_timing() -> None:
    spikes = bernoulli(20, 1, 4, rate=0.6)
    observed, shuffled = synchrony(spikes, all_pairs(4), lag_kernel(1, window=0, shape="flat"), bins=1)
    assert observed == pytest.approx(shuffled)


def test_pairs_are_drawn_by_distance() -> None:
    positions = np.random.default_rng(0).uniform(0, 2, (120, 2))
    windows = [np.flatnonzero(positions[:, 0] < 1), np.flatnonzero(positions[:, 0] >= 1)]

    def draw(seed: int) -> Pairs:
        return draw_pairs(
            positions,
            windows,
            side_mm=1.0,
            bins=4,
            per_bin=50,
            most_units=40,
            generator=np.random.default_rng(seed),
        )

    pairs = draw(0)
    distances = np.linalg.norm(positions[pairs.first] - positions[pairs.second], axis=1)
    assert (np.minimum(distances * 4, 3).astype(int) == pairs.bins).all()
    assert distances.max() <= 1.0
    assert np.bincount(pairs.bins).tolist() == [50] * 4
    assert ((positions[pairs.first, 0] < 1) == (positions[pairs.second, 0] < 1)).all()
    assert (pairs.first != pairs.second).all()
    assert (draw(0).first == pairs.first).all()
    assert not np.array_equal(draw(1).first, pairs.first)


def test_bins_without_pairs_are_no_number() -> None:
    pairs = Pairs(np.array([0]), np.array([1]), np.array([1]))
    spikes = torch.ones(3, 2, 2, dtype=torch.bool)
    observed, shuffled = synchrony(spikes, pairs, lag_kernel(2, window=1, shape="flat"), bins=3)
    for found in (observed, shuffled):
        assert np.isnan(found).all(0).tolist() == [True, False, True]
        assert found[:, 1] == pytest.approx(1.0)
