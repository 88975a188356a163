"""Pre-optimised sheets: same places, better neighbours, and a search that can be cut anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import needs_compiler
from torch import Tensor

from tdsnn.errors import GateError, IntegrityError, UsageError
from tdsnn.topography.clusters import MIN_UNITS
from tdsnn.topography.layouts import SheetSpec
from tdsnn.topography.positions import (
    PositionSearch,
    PositionState,
    _draw_pairs,
    draw_squares,
    optimise_positions,
)
from tdsnn.topography.sheets import CorticalSheet


def make_sheet(channels: int = 8, *, seed: int = 0) -> CorticalSheet:
    """8 x 8 pixels; for 8 channels about 25 units in a square of 8.2 mm."""
    return CorticalSheet.retinotopic(SheetSpec("a", 36.75), (channels, 8, 8), first_height=40, seed=seed)


def make_rates(units: int, *, stimuli: int = 40, silent: float = 0.1, seed: int = 0) -> Tensor:
    """Responses that stem from two sources; a share of the units is constant."""
    draws = torch.Generator().manual_seed(seed)
    rates = torch.rand(stimuli, 2, generator=draws) @ torch.rand(2, units, generator=draws)
    rates += 0.1 * torch.rand(stimuli, units, generator=draws)
    return torch.where(torch.rand(units, generator=draws) < silent, 0.3, rates)


def multiset(positions: Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, positions.tolist()))


SHEET = make_sheet()
RATES = make_rates(len(SHEET.positions))


def test_neighbours_respond_alike_on_the_same_places() -> None:
    seen: list[tuple[int, int]] = []
    found = optimise_positions(
        SHEET,
        RATES,
        attempts_per_unit=200,
        seed=1,
        compiled=True,
        source={"stimuli": "noise"},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert multiset(found.positions) == multiset(SHEET.positions)
    assert not torch.equal(found.positions, SHEET.positions)
    assert found.preparation == "pre-optimised"
    assert (found.layer, found.shape, found.seed) == (SHEET.layer, SHEET.shape, SHEET.seed)
    (_, before), *_, (spent, after) = found.log["alignment"]
    assert before == pytest.approx(0, abs=0.1)
    assert after > before + 0.15
    # Its squares hold less than a probe, so a search on the new sheet probes the same places.
    again = PositionSearch(found, RATES, seed=1, compiled=True).start()
    assert again.alignment[0][1] == pytest.approx(after, abs=1e-4)
    assert spent >= 200
    assert found.log["stimuli"] == "noise"
    assert found.log["attempts"] >= 200 * 512
    assert 0 < found.log["accepted"] < found.log["attempts"]
    assert seen[-1] == (200 * 512, 200 * 512)
    assert len(seen) == found.log["rounds"]


@pytest.mark.parametrize("silent", [0.1, 0.96])
def test_the_alignment_is_that_of_a_literal_average(silent: float) -> None:
    """Pearson over the pairs of the units around each probe, silent units aside."""
    rates = make_rates(512, silent=silent)
    search = PositionSearch(SHEET, rates, seed=3, compiled=False)
    sites = torch.randperm(512, generator=torch.Generator().manual_seed(0))
    occupant = {int(site): unit for unit, site in enumerate(sites)}
    values = []
    for place in search._probes.units:
        units = [occupant[int(site)] for site in place]
        active = [k for k, unit in enumerate(units) if rates[:, unit].std() > 1e-6]
        if len(active) < 3:
            continue
        alike = torch.corrcoef(rates[:, [units[k] for k in active]].T.double())
        placed = SHEET.positions[place[active]].double()
        near = 1 / (1 + torch.cdist(placed, placed))
        above = torch.ones_like(near).triu(1).bool()
        values.append(torch.corrcoef(torch.stack([alike[above], near[above]]))[0, 1])
    assert (len(values) == len(search._probes.units)) == (silent < 0.5)
    assert search.alignment(sites) == pytest.approx(float(torch.stack(values).mean()), abs=1e-5)


@needs_compiler
def test_both_paths_place_units_alike() -> None:
    eager, compiled = (
        optimise_positions(SHEET, RATES, attempts_per_unit=15, steps_per_square=60, seed=1, compiled=choice)
        for choice in (False, True)
    )
    assert torch.equal(eager.positions, compiled.positions)
    assert eager.log == compiled.log


def test_a_seed_decides() -> None:
    first, again, other = (
        optimise_positions(SHEET, RATES, attempts_per_unit=5, steps_per_square=50, seed=seed, compiled=False)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.positions, again.positions)
    assert first.log == again.log
    assert not torch.equal(first.positions, other.positions)


def test_a_search_goes_on_where_it_was_cut() -> None:
    def search() -> PositionSearch:
        return PositionSearch(SHEET, RATES, attempts_per_unit=20, steps_per_square=40, seed=1, compiled=False)

    whole = search()
    state = whole.start()
    while not whole.finished(state):
        state = whole.advance(state)
    assert state.rounds >= 4
    cut = search().start()
    for _ in range(state.rounds):
        # As after a restart: nothing but the saved state is left.
        cut = search().advance(PositionState(**asdict(cut)))
    assert search().finished(cut)
    assert torch.equal(search().result(cut).positions, whole.result(state).positions)
    assert search().result(cut).log == whole.result(state).log


def test_a_state_of_another_sheet_is_refused() -> None:
    search = PositionSearch(SHEET, RATES, seed=1, compiled=False)
    for sites in (torch.arange(100), torch.zeros(512, dtype=torch.int64)):
        with pytest.raises(IntegrityError, match="512 units of a"):
            search.advance(PositionState(sites=sites))


@settings(max_examples=25, deadline=None)
@given(max_units=st.integers(5, 80), side=st.sampled_from([3.0, 5.0, 12.0, 100.0]), seed=st.integers(0, 999))
def test_squares_of_a_round_share_no_unit(max_units: int, side: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    squares = draw_squares(SHEET.positions, side, max_units=max_units, generator=draws)
    units = torch.cat(squares)
    assert units.unique().numel() == units.numel()
    assert all(5 <= len(square) <= max_units for square in squares)
    for square in squares:
        placed = SHEET.positions[square]
        assert (placed.amax(0) - placed.amin(0)).max() <= side + 1e-4
    if side >= 12 and max_units >= 2 * MIN_UNITS:
        assert units.numel() > 0.8 * 512


def test_each_round_cuts_the_sheet_elsewhere() -> None:
    draws = torch.Generator().manual_seed(0)
    first, second = (draw_squares(SHEET.positions, 12.0, max_units=500, generator=draws) for _ in range(2))
    assert {frozenset(square.tolist()) for square in first}.isdisjoint(
        frozenset(square.tolist()) for square in second
    )


def test_full_squares_are_divided_at_random() -> None:
    draws = torch.Generator().manual_seed(0)
    first, second = (draw_squares(SHEET.positions, 1e6, max_units=100, generator=draws) for _ in range(2))
    assert [len(part) for part in first] == [85, 85, 85, 85, 86, 86]
    assert set(first[0].tolist()) != set(second[0].tolist())
    assert all(abs(float(part.float().mean()) - 255.5) < 5 * 148 / 85**0.5 for part in first)


def test_every_pair_is_as_likely() -> None:
    pairs = _draw_pairs(torch.tensor([2, 5]), 20_000, torch.Generator().manual_seed(0))
    assert pairs[0].sum(1).unique().tolist() == [1]
    seen = (5 * pairs[1, :, 0] + pairs[1, :, 1]).bincount(minlength=25).view(5, 5)
    assert seen.diagonal().eq(0).all()
    assert (seen[~torch.eye(5).bool()] - 1000).abs().max() < 5 * 1000**0.5


def test_each_round_draws_anew() -> None:
    search = PositionSearch(SHEET, RATES, steps_per_square=20, seed=1, compiled=False)
    first = search.start()
    second = replace(first, rounds=1)
    assert not torch.equal(search.advance(first).sites, search.advance(second).sites)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), channels=st.integers(3, 10), silent=st.floats(0, 0.9))
def test_positions_are_only_exchanged_and_squares_only_gain(seed: int, channels: int, silent: float) -> None:
    sheet = make_sheet(channels, seed=seed)
    sheet = replace(sheet, neighbourhood_mm=15.0)
    rates = make_rates(64 * channels, silent=silent, seed=seed)
    search = PositionSearch(sheet, rates, steps_per_square=40, max_units=60, seed=seed, compiled=False)
    state = search.start()
    scores = search._scores[:-1]

    def total(sites: Tensor) -> float:
        """Sum of correlation times proximity over the squares of the first round."""
        generator = search._generator("round 0")
        sums = []
        for square in search._draw(state.sites, generator):
            placed = sheet.positions[sites[square]]
            sums.append((scores[square] @ scores[square].T / (1 + torch.cdist(placed, placed))).sum())
        return float(sum(sums))

    after = search.advance(state)
    assert multiset(search.result(after).positions) == multiset(sheet.positions)
    assert total(after.sites) > total(state.sites) - 1e-3
    assert (total(after.sites) > total(state.sites) + 1e-3) == (after.accepted > 0)


def test_the_new_sheet_has_its_own_index_and_leaves_the_old_one() -> None:
    before = SHEET.positions.clone()
    centre = torch.tensor([18.0, 18.0])
    SHEET.units_within(centre, 6.0)
    found = optimise_positions(SHEET, RATES, attempts_per_unit=5, seed=1, compiled=True)
    assert torch.equal(SHEET.positions, before)
    inside = ((found.positions - centre).abs() <= 6.0).all(1)
    assert found.units_within(centre, 6.0).tolist() == inside.nonzero().flatten().tolist()
    assert all(torch.equal(*pair) for pair in zip(found.extent, SHEET.extent, strict=True))


def test_the_log_is_saved_with_the_sheet_and_only_then() -> None:
    assert set(SHEET.metadata()) == {"shape", "size_mm", "neighbourhood_mm", "seed", "preparation"}
    assert CorticalSheet.from_metadata("a", SHEET.metadata(), SHEET.positions).log == {}
    found = optimise_positions(
        SHEET, RATES, attempts_per_unit=5, seed=1, compiled=True, source={"model": "m"}
    )
    saved = json.loads(json.dumps(found.metadata(), allow_nan=False))
    again = CorticalSheet.from_metadata("a", saved, found.positions)
    assert again.log == found.log
    assert again.metadata() == found.metadata()


def test_rates_that_cannot_be_used_are_refused() -> None:
    def search(rates: Tensor) -> PositionSearch:
        return PositionSearch(SHEET, rates, seed=0, compiled=False)

    broken = RATES.clone()
    broken[3, 4] = float("nan")
    with pytest.raises(GateError, match="1 of 20480 responses"):
        search(broken)
    # The mean of equal numbers may be rounded: relative to it they would not be zero.
    with pytest.raises(GateError, match="answers all stimuli alike"):
        search(RATES[:1].expand(37, -1))
    for wrong in (RATES[:, :-1], RATES[:1], RATES[0]):
        with pytest.raises(UsageError, match="512"):
            search(wrong)


def test_numbers_out_of_range_are_refused() -> None:
    for wrong in ({"attempts_per_unit": 0.0}, {"steps_per_square": 0}, {"max_units": 4}):
        with pytest.raises(UsageError, match="at least 5 units"):
            optimise_positions(SHEET, RATES, seed=0, compiled=False, **wrong)


def test_squares_without_units_are_refused() -> None:
    sheet = replace(SHEET, neighbourhood_mm=0.01)
    with pytest.raises(UsageError, match="holds 5 units"):
        optimise_positions(sheet, RATES, seed=0, compiled=False)
