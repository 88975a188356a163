"""Coincident spikes against distance: trains whose synchrony is known."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import maps
import networks
import numpy as np
import pytest
import torch
from torch import Tensor

from tdsnn.data._base import Split
from tdsnn.errors import GateError, UsageError
from tdsnn.kernels.lif import LIFConfig
from tdsnn.models._base import Model
from tdsnn.models._neurons import LIF, State
from tdsnn.temporal import Subject
from tdsnn.temporal._coincidences import Pairs, autocorrelograms, draw_pairs, synchrony
from tdsnn.temporal.synchrony import Synchrony, of_firing_units, pairs_on
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses.stc import lag_kernel
from tdsnn.topography.sheets import build_sheets


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


SIDE, COPIES, STEPS = 8, 8, 4


class Planted(Model):
    """Spikes that the image writes down: at step t those of its t-th square, in every channel the same."""

    def __init__(self, *, timesteps: int = STEPS) -> None:
        super().__init__(
            architecture="planted",
            arguments={},
            timesteps=timesteps,
            num_classes=2,
            in_channels=1,
            mean=[0.0],
            std=[1.0],
            sheet_specs=[SheetSpec("neuron", 30.0)],
        )
        self.neuron = LIF(LIFConfig(decay_input=False))

    def init_state(self, encoded: Tensor) -> State:
        return {"step": torch.zeros(len(encoded), dtype=torch.int64)}

    def step(self, x: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        after = dict(state)
        step = int(after["step"][0])
        square = x[:, :, step * SIDE : (step + 1) * SIDE]
        spikes = self.neuron(2 * square.expand(-1, COPIES, -1, -1)[None], after, "neuron")[0]
        after["step"] = state["step"] + 1
        return spikes.flatten(1)[:, :2], after


def subject(model: Model, images: Tensor, *, batch_size: int = 16) -> Subject:
    split = Split(
        images=(255 * images).to(torch.uint8).numpy(),
        labels=torch.zeros(len(images), dtype=torch.int64).numpy(),
        classes=("a", "b"),
        digest="0" * 64,
        pinned=False,
        origin="drawn",
    )
    return Subject(model=model, split=split, n=len(images), batch_size=batch_size)


@pytest.fixture
def planted() -> Model:
    model = Planted().eval()
    spec = model.sheet_specs["neuron"]
    sheet = build_sheets({"neuron": (COPIES, SIDE, SIDE)}, [spec], seed=0)["neuron"]
    # Copies lie within 0.2 mm, 3.75 mm from those of the next pixel; a window is 3.75 mm wide.
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    places = torch.from_numpy(np.stack([columns, rows], 1)).float().repeat(COPIES, 1) * 3.75
    drawn = torch.rand(places.shape, generator=torch.Generator().manual_seed(0))
    model.sheets = {"neuron": dataclasses.replace(sheet, positions=places + 0.14 * drawn)}
    return model


@pytest.fixture
def bits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(40, 1, STEPS * SIDE, SIDE, generator=generator) < 0.5).float()


def test_copies_that_lie_together_are_found(planted: Model, bits: Tensor) -> None:
    found = Synchrony().measure(subject(planted, bits))
    assert found.figures["excess@neuron"].low > 0.05
    curve = found.curves["synchrony@neuron"]
    assert curve.y[0] == pytest.approx(1.0)
    assert curve.y[-1] < 0.9
    figures = {key: figure.value for key, figure in found.figures.items()}
    assert figures["excess@neuron"] == pytest.approx(
        figures["near - far@neuron"] - figures["near - far shuffled@neuron"]
    )
    assert found.curves["synchrony@neuron"].y[0] == pytest.approx(figures["near@neuron"])
    assert found.curves["synchrony shuffled@neuron"].y[0] == pytest.approx(figures["near shuffled@neuron"])


def test_units_at_exchanged_places_show_nothing(planted: Model, bits: Tensor) -> None:
    planted.sheets = {"neuron": maps.shuffled(planted.sheets["neuron"])}
    excess = Synchrony().measure(subject(planted, bits)).figures["excess@neuron"]
    assert abs(excess.value) < 0.03


def test_copies_with_times_of_their_own_are_the_control(planted: Model, bits: Tensor) -> None:
    """All steps equal: what is shared is the count, and nothing is left above the control."""
    still = bits[:, :, :SIDE].repeat(1, 1, STEPS, 1)
    figures = Synchrony().measure(subject(planted, still)).figures
    assert figures["near - far@neuron"].low > 0.05
    assert figures["excess@neuron"].value == pytest.approx(0.0, abs=1e-6)


def test_no_number_depends_on_the_batch(planted: Model, bits: Tensor) -> None:
    one, other = (Synchrony().measure(subject(planted, bits, batch_size=size)) for size in (40, 7))
    for key, samples in one.samples.items():
        assert other.samples[key] == pytest.approx(samples)


def test_silent_layers_are_missing_and_a_silent_network_refused(planted: Model, bits: Tensor) -> None:
    with pytest.raises(GateError, match="0 near and 0 far pairs"):
        Synchrony().measure(subject(planted, torch.zeros_like(bits)))


def test_what_has_no_distance_or_no_timing_is_refused(bits: Tensor) -> None:
    bare = Planted().eval()
    with pytest.raises(GateError, match="no sheets"):
        Synchrony().measure(subject(bare, bits))
    single = Planted(timesteps=1).eval()
    single.sheets = build_sheets({"neuron": (COPIES, SIDE, SIDE)}, single.sheet_specs.values(), seed=0)
    with pytest.raises(GateError, match="no timing"):
        Synchrony().measure(subject(single, bits))
    with pytest.raises(GateError, match="spike"):
        Synchrony().measure(subject(networks.network("resnet18", width=2), networks.pictures(2)))


def test_settings_that_do_not_fit_are_refused(planted: Model, bits: Tensor) -> None:
    with pytest.raises(UsageError, match="A lag of 4 needs more than 4 time steps"):
        Synchrony(lag=4).measure(subject(planted, bits))
    with pytest.raises(UsageError, match="neurons"):
        Synchrony(layers="neurons").measure(subject(planted, bits))
    with pytest.raises(UsageError, match="lag"):
        Synchrony(lag=-1)


def test_a_network_and_its_twin_are_asked_about_the_same_pairs(planted: Model) -> None:
    """Pairs come from the sheet and the seed, whatever fires."""
    sheet = planted.sheets["neuron"]
    (one, side), (other, _) = pairs_on(sheet, seed=3), pairs_on(sheet, seed=3)
    assert side > 0
    assert all((a == b).all() for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    fires = torch.ones(2, 1, len(sheet.positions), dtype=torch.bool)
    fires[:, :, one.first[0]] = False
    kept = of_firing_units(one, fires)
    assert len(kept.first) == int(((one.first != one.first[0]) & (one.second != one.first[0])).sum())
