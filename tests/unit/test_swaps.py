"""Exchanges of units: the sign test keeps what the literal rule keeps, on every path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import needs_compiler
from numpy.typing import NDArray
from torch import Tensor

from tdsnn.kernels import swaps
from tdsnn.kernels._library import Library, library
from tdsnn.kernels.swaps import swap_places

PATHS = [
    pytest.param(False, id="eager"),
    pytest.param(True, id="compiled", marks=needs_compiler),
]


def problem(
    units: int, attempts: int, *, squares: int = 1, silent: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation of responses with a few sources, proximity of random places, random pairs."""
    draws = torch.Generator().manual_seed(seed)
    responses = torch.randn(squares, units, 3, generator=draws) @ torch.randn(3, 40, generator=draws)
    responses += torch.randn(responses.shape, generator=draws)
    scores = responses - responses.mean(2, keepdim=True)
    scores /= scores.norm(dim=2, keepdim=True)
    scores[:, :silent] = 0
    positions = 3 * torch.rand(squares, units, 2, generator=draws)
    first = torch.randint(units, (squares, attempts), generator=draws)
    step = torch.randint(1, units, (squares, attempts), generator=draws)
    pairs = torch.stack([first, (first + step) % units], dim=2)
    distances = (positions[:, :, None] - positions[:, None]).norm(dim=3)
    return scores @ scores.mT, 1 / (1 + distances), pairs


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    with np.errstate(invalid="ignore"):
        return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def literal(correlation: Tensor, proximity: Tensor, pairs: Tensor) -> tuple[list[int], list[float]]:
    """The published rule in float64, all computed anew: places, and r of the square after each step."""
    alike, near = correlation.double().numpy(), proximity.double().numpy()
    places, course = np.arange(len(alike)), []
    above = np.triu_indices(len(alike), 1)
    for pair in pairs.numpy():
        moved = places.copy()
        moved[pair] = moved[pair[::-1]]
        before = pearson(alike[pair].ravel(), near[np.ix_(places[pair], places)].ravel())
        after = pearson(alike[pair].ravel(), near[np.ix_(moved[pair], moved)].ravel())
        # Two silent units have no r, which is not greater than anything.
        if after - before > 1e-13:
            places = moved
        course.append(pearson(alike[above], near[np.ix_(places, places)][above]))
    return places.tolist(), course


@pytest.mark.parametrize("compiled", PATHS)
@pytest.mark.parametrize(("units", "silent"), [(2, 0), (5, 0), (12, 4), (37, 0), (40, 15), (6, 6)])
def test_the_sign_test_is_the_literal_rule(units: int, silent: int, compiled: bool) -> None:
    square = problem(units, 400, silent=silent)
    found = swap_places(*square, compiled=compiled)
    places, course = literal(*(part[0] for part in square))
    assert found.places[0].tolist() == places
    rises = (np.diff(course, prepend=pearson(*upper(square))) > 1e-13).sum()
    assert int(found.accepted) == rises
    assert (rises > 10) == (units > 6)


def upper(square: tuple[Tensor, Tensor, Tensor]) -> list[NDArray[np.float64]]:
    """Correlation and proximity over the pairs of the first square."""
    above = np.triu_indices(square[0].shape[1], 1)
    return [matrix[0].double().numpy()[above] for matrix in square[:2]]


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize(("units", "squares"), [(7, 1), (64, 5), (203, 3)])
def test_both_paths_keep_the_same(units: int, squares: int, threads: int) -> None:
    square = problem(units, 1500, squares=squares, silent=units // 5)
    eager, compiled = (swap_places(*square, compiled=choice) for choice in (False, True))
    assert torch.equal(eager.places, compiled.places)
    assert torch.equal(eager.accepted, compiled.accepted)
    torch.testing.assert_close(eager.gain, compiled.gain)
    assert (compiled.accepted > 5).all()
    assert (compiled.accepted < 1500).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_keeps_the_same() -> None:
    square = problem(64, 1500, squares=5, silent=9)
    here = swap_places(*square, compiled=True)
    there = swap_places(*(part.cuda() for part in square), compiled=True)
    assert torch.equal(here.places, there.places.cpu())
    assert torch.equal(here.accepted, there.accepted.cpu())


@pytest.mark.parametrize("compiled", PATHS)
@settings(max_examples=25, deadline=None)
@given(units=st.integers(2, 30), silent=st.integers(0, 5), seed=st.integers(0, 10_000))
def test_units_change_places_and_the_alignment_never_falls(
    compiled: bool, units: int, silent: int, seed: int
) -> None:
    square = problem(units, 60, squares=2, silent=min(silent, units), seed=seed)
    correlation, proximity, _ = square
    found = swap_places(*square, compiled=compiled)
    assert torch.equal(found.places.sort().values, torch.arange(units).expand(2, units))
    moved = torch.stack([near[at][:, at] for near, at in zip(proximity, found.places, strict=True)])
    rise = (correlation.double() * (moved.double() - proximity)).sum((1, 2)) / 2
    torch.testing.assert_close(found.gain, rise, rtol=1e-6, atol=1e-6)
    assert (found.gain >= 0).all()
    assert torch.equal(found.gain > 0, found.accepted > 0)


@pytest.mark.parametrize("compiled", PATHS)
def test_units_that_respond_alike_are_a_tie(compiled: bool) -> None:
    correlation, proximity, _ = problem(50, 1)
    correlation[0, 1] = correlation[0, 0]
    correlation[0, :, 1] = correlation[0, :, 0]
    pairs = torch.tensor([[[0, 1], [1, 0], [3, 3]]])
    found = swap_places(correlation, proximity, pairs, compiled=compiled)
    assert int(found.accepted) == 0
    assert torch.equal(found.places[0], torch.arange(50))


@pytest.mark.parametrize("compiled", PATHS)
def test_filling_up_changes_nothing(compiled: bool) -> None:
    correlation, proximity, pairs = problem(30, 300, silent=3)
    alone = swap_places(correlation, proximity, pairs, compiled=compiled)
    filled = swap_places(
        torch.nn.functional.pad(correlation, (0, 11, 0, 11)),
        torch.nn.functional.pad(proximity, (0, 11, 0, 11), value=0.3),
        pairs,
        compiled=compiled,
    )
    assert torch.equal(filled.places[0, :30], alone.places[0])
    assert torch.equal(filled.places[0, 30:], torch.arange(30, 41))
    assert torch.equal(filled.accepted, alone.accepted)


@pytest.mark.parametrize("compiled", PATHS)
def test_the_inputs_stay_and_need_not_be_contiguous(compiled: bool) -> None:
    square = problem(20, 100, squares=2)
    kept = [part.clone() for part in square]
    expected = swap_places(*square, compiled=compiled)
    assert expected.accepted.sum() > 0
    assert all(torch.equal(part, copy) for part, copy in zip(square, kept, strict=True))
    strided = [part.mT.contiguous().mT for part in square]
    assert torch.equal(swap_places(*strided, compiled=compiled).places, expected.places)


def test_the_choice_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    square = problem(10, 5)
    monkeypatch.setattr(swaps, "_compiled", lambda *_: "compiled")
    monkeypatch.setattr(swaps, "_eager", lambda *_: "eager")
    assert swap_places(*square, compiled=False) == "eager"
    assert swap_places(*square, compiled=True) == ("compiled" if library() else "eager")
    monkeypatch.setattr(swaps, "library", lambda: Library(None, "no compiler"))
    assert swap_places(*square, compiled=True) == "eager"


@pytest.mark.parametrize("compiled", PATHS)
@pytest.mark.parametrize("unit", [-1, 10])
def test_a_unit_outside_the_square_is_refused(unit: int, compiled: bool) -> None:
    correlation, proximity, pairs = problem(10, 5)
    pairs[0, 2, 1] = unit
    with pytest.raises(IndexError, match="square of 10 units"):
        swap_places(correlation, proximity, pairs, compiled=compiled)


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    correlation, proximity, pairs = problem(10, 5, squares=2)
    for wrong in (
        (correlation[:1], proximity, pairs),
        (correlation, proximity[:, :9, :9], pairs),
        (correlation, proximity, pairs[:1]),
        (correlation.double(), proximity, pairs),
    ):
        with pytest.raises(ValueError, match="Squares"):
            swap_places(*wrong, compiled=True)
