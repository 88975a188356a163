"""The STC loss against the formulas written out as loops, and its behaviour on silent units."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdsnn.errors import UsageError
from tdsnn.schema import Topography
from tdsnn.topography.clusters import Clusters, gather, sample_clusters
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.losses.stc import STC, lag_kernel, stc_terms
from tdsnn.topography.sheets import CorticalSheet, build_sheets


def literal(
    spikes_TBN: torch.Tensor, proximity_NN: torch.Tensor, window: int, *, shape: str = "flat"
) -> tuple[float, float]:
    """P(r, d) and P(r_CCG, d) of one cluster, eq. 3-7 of the paper, one pair at a time, in float64."""
    s = spikes_TBN.double().numpy()
    steps, trials, units = s.shape

    def ccg(i: int, j: int) -> float:
        total = 0.0
        for lag in range(-window, window + 1):
            counts = 1 / (steps - abs(lag)) if shape == "flat" else 1 - abs(lag) / (window + 1)
            for b in range(trials):
                for t in range(steps):
                    if 0 <= t + lag < steps:
                        total += s[t, b, i] * s[t + lag, b, j] * counts / trials
        return total

    rates = s.mean(0)
    varying = [i for i in range(units) if rates[:, i].var() > 0]
    active = [i for i in range(units) if s[:, :, i].any()]
    near = proximity_NN.double().numpy()
    rate = [
        (np.corrcoef(rates[:, i], rates[:, j])[0, 1], near[i, j])
        for i, j in itertools.combinations(varying, 2)
    ]
    auto = {i: ccg(i, i) for i in active}
    timing = [
        (ccg(i, j) / math.sqrt(auto[i] * auto[j]), near[i, j]) for i, j in itertools.combinations(active, 2)
    ]
    return tuple(float(np.corrcoef(np.array(pairs).T)[0, 1]) for pairs in (rate, timing))  # type: ignore[return-value]


def cluster(
    units: int, *, trials: int, steps: int, rate: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(2, steps, trials, units, generator=draws) < rate).float()
    positions = torch.rand(2, units, 2, generator=draws) * 3
    return spikes, 1 / (1 + torch.cdist(positions, positions))


@settings(max_examples=25, deadline=None)
@given(
    units=st.integers(6, 10),
    trials=st.integers(8, 20),
    steps=st.integers(2, 5),
    rate=st.sampled_from([0.15, 0.4, 0.7]),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_terms_equal_the_literal_formula(
    units: int, trials: int, steps: int, rate: float, seed: int, data: st.DataObject
) -> None:
    window = data.draw(st.integers(0, steps - 1))
    shape = data.draw(st.sampled_from(["flat", "triangular"]))
    spikes, near = cluster(units, trials=trials, steps=steps, rate=rate, seed=seed)
    terms = stc_terms(spikes, near, window=window, shape=shape)
    for g in range(2):
        rate_p, timing_p = literal(spikes[g], near[g], window, shape=shape)
        if terms.rate_valid[g]:
            assert float(terms.rate[g]) == pytest.approx(rate_p, abs=2e-4)
        if terms.timing_valid[g]:
            assert float(terms.timing[g]) == pytest.approx(timing_p, abs=2e-4)
    assert terms.rate_valid.any()
    assert terms.timing_valid.any()


def largest_ratio(spikes_TBN: torch.Tensor, *, window: int, shape: str) -> float:
    """Largest |r_CCG| over the pairs of units that fire, in float64."""
    s = spikes_TBN.double()
    kernel = lag_kernel(len(s), window=window, shape=shape).double()
    ccg = torch.einsum("tbi,ts,sbj->ij", s, kernel, s)
    power = ccg.diagonal()
    # A triangle has no negative eigenvalue, yet rounding may give a power of 0 a sign.
    ratio = ccg[power > 1e-9][:, power > 1e-9] / (power[power > 1e-9].outer(power[power > 1e-9])).sqrt()
    return float(ratio.abs().max()) if ratio.numel() else 0.0


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 8), trials=st.integers(1, 4), data=st.data())
def test_a_triangular_window_bounds_the_correlation(steps: int, trials: int, data: st.DataObject) -> None:
    window = data.draw(st.integers(0, steps - 1))
    bits = data.draw(st.lists(st.booleans(), min_size=steps * trials * 3, max_size=steps * trials * 3))
    spikes = torch.tensor(bits, dtype=torch.float32).view(steps, trials, 3)
    assert largest_ratio(spikes, window=window, shape="triangular") <= 1 + 1e-6
    assert torch.linalg.eigvalsh(lag_kernel(steps, window=window, shape="triangular").double()).min() > -1e-7


def test_a_flat_window_does_not() -> None:
    """Two units that fire once each, one step or two apart."""
    spikes = torch.zeros(4, 1, 2)
    spikes[1, 0, 0] = spikes[2, 0, 1] = 1
    assert largest_ratio(spikes, window=1, shape="flat") == pytest.approx(4 / 3)
    apart = torch.zeros(4, 1, 2)
    apart[1, 0, 0] = apart[3, 0, 1] = 1
    assert largest_ratio(apart, window=2, shape="flat") == pytest.approx(2)


def test_a_triangle_over_the_unbiased_estimate_would_not_either() -> None:
    """Why the triangular window divides by T: with T - lag units that alternate exceed 1 at T = 5, W = 1."""
    lag = (torch.arange(5)[:, None] - torch.arange(5)[None]).abs()
    kernel = (1 - lag / 2).clamp_min(0) / (5 - lag)
    even = torch.tensor([1.0, 0, 1, 0, 1])
    odd = 1 - even
    assert float(even @ kernel @ odd / (even @ kernel @ even * (odd @ kernel @ odd)).sqrt()) > 1.02


def test_gradient_equals_finite_differences() -> None:
    spikes, near = cluster(7, trials=9, steps=4, rate=0.4, seed=3)
    values = (spikes + 0.1 * torch.rand(spikes.shape)).double().requires_grad_()

    def total(x: torch.Tensor) -> torch.Tensor:
        terms = stc_terms(x, near.double(), window=1)
        return terms.rate.sum() + 2 * terms.timing.sum()

    assert torch.autograd.gradcheck(total, (values,), fast_mode=True, atol=1e-4)


def test_silent_and_constant_units_are_masked_with_finite_gradient() -> None:
    spikes, near = cluster(10, trials=16, steps=4, rate=0.4, seed=5)
    spikes[..., 0] = 0
    spikes[..., 1] = 1
    spikes.requires_grad_()
    terms = stc_terms(spikes, near, window=1)
    kept = stc_terms(spikes.detach()[..., 2:], near[:, 2:, 2:], window=1)
    torch.testing.assert_close(terms.rate, kept.rate, rtol=1e-4, atol=1e-5)
    assert terms.masked.tolist() == pytest.approx([1 - 8 * 7 / 90] * 2)
    (grad,) = torch.autograd.grad(terms.rate.sum() + terms.timing.sum(), spikes)
    assert grad.isfinite().all()
    assert grad[..., 0].abs().max() == 0
    assert grad[..., 2:].abs().max() > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_dead_cluster_adds_nothing_and_keeps_the_graph(value: float) -> None:
    spikes = torch.full((1, 4, 8, 6), value, requires_grad=True)
    terms = stc_terms(spikes, cluster(6, trials=8, steps=4, rate=0.5, seed=0)[1][:1], window=1)
    assert not terms.rate_valid.any()
    (terms.rate.sum() + terms.timing.sum()).backward()
    assert spikes.grad is not None
    assert spikes.grad.abs().max() == 0


def test_neighbours_that_fire_alike_lower_the_loss() -> None:
    places = torch.linspace(0, 4, 12)
    near = 1 / (1 + (places[:, None] - places[None]).abs())[None]
    phase = torch.rand(200, generator=torch.Generator().manual_seed(0)) * 4
    alike = ((places - phase[:, None]).abs() < 0.7).float()
    alike = alike.expand(4, 200, 12)[None]
    shuffled = alike[..., torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    ordered, mixed = stc_terms(alike, near, window=1), stc_terms(shuffled, near, window=1)
    assert float(ordered.rate) > 0.8 > float(mixed.rate)
    assert float(ordered.timing) > 0.8 > float(mixed.timing)


@pytest.mark.parametrize("window", [-1, 4])
def test_window_outside_the_steps_is_refused(window: int) -> None:
    spikes, near = cluster(6, trials=8, steps=4, rate=0.5, seed=0)
    with pytest.raises(UsageError, match="0 to 3"):
        stc_terms(spikes, near, window=window)
    with pytest.raises(UsageError, match="Did you mean triangular"):
        stc_terms(spikes, near, window=1, shape="triangle")


def sheets() -> dict[str, CorticalSheet]:
    return build_sheets(
        {"a": (4, 8, 8), "b": (8, 4, 4)}, [SheetSpec("a", 10.0), SheetSpec("b", 20.0)], seed=0
    )


def make_stc(topography: Topography) -> STC:
    return STC(SimpleNamespace(sheets=sheets(), get_submodule=None), topography)


def test_loss_sums_layers_and_averages_clusters() -> None:
    topography = Topography(alpha=0.3, beta=0.7, clusters=5, cluster_units=20)
    loss = make_stc(topography)
    outputs = {k: (torch.rand(4, 12, *s.shape) < 0.3).float() for k, s in sheets().items()}
    value, weighted, parts = loss(outputs, generator=torch.Generator().manual_seed(4))
    terms = loss.measure(outputs, generator=torch.Generator().manual_seed(4))
    rate = sum(float(((1 - t.rate) / 2).mean()) for t in terms.values())
    timing = sum(float(((1 - t.timing) / 2).mean()) for t in terms.values())
    assert float(value) == pytest.approx(0.3 * rate + 0.7 * timing, rel=1e-5)
    assert float(parts["L_L"]) == pytest.approx(rate, rel=1e-5)
    assert float(weighted["L_L"]) == pytest.approx(0.3 * rate, rel=1e-5)


def test_the_loss_uses_the_window_that_it_was_given() -> None:
    outputs = {k: (torch.rand(4, 12, *s.shape) < 0.3).float() for k, s in sheets().items()}
    flat, triangular = (
        make_stc(
            Topography(alpha=1.0, beta=1.0, clusters=3, cluster_units=20, options={"window_shape": shape})
        )(outputs, generator=torch.Generator().manual_seed(4)).parts
        for shape in ("flat", "triangular")
    )
    assert flat["L_L"] == triangular["L_L"]
    assert flat["L_S"] != triangular["L_S"]


def test_gather_picks_units_in_flattened_order() -> None:
    sheet = sheets()["a"]
    output = torch.rand(4, 3, *sheet.shape)
    clusters = sample_clusters(sheet, count=2, units=9, generator=torch.Generator().manual_seed(0))
    flat = output.flatten(2)
    expected = torch.stack([flat[..., units] for units in clusters.units])
    lasting = output.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 3))
    assert torch.equal(gather(output, clusters), expected)
    assert torch.equal(gather(lasting, clusters), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_loss_gathers_on_the_path_that_it_was_told(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watched(output: torch.Tensor, clusters: Clusters, *, compiled: bool) -> torch.Tensor:
        asked.append(compiled)
        return gather(output, clusters)

    monkeypatch.setattr("tdsnn.topography.losses.stc.gather", watched)
    loss = make_stc(Topography(alpha=1.0, clusters=2, cluster_units=8))
    loss.compiled = compiled
    outputs = {name: torch.rand(2, 3, *sheet.shape) for name, sheet in sheets().items()}
    loss(outputs, generator=torch.Generator().manual_seed(0))
    assert asked == [compiled] * len(outputs)


def test_sheets_without_layers_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        STC(SimpleNamespace(sheets={}, get_submodule=None), Topography(alpha=1.0))
