"""Intervals and tests beside independent computations of the same quantities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, sem, ttest_rel
from scipy.stats import poisson as poisson_law
from scipy.stats import t as student

from tdsnn.errors import UsageError
from tdsnn.stats import (
    Interval,
    equivalent,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_mean_difference,
    percentile_interval,
    poisson,
    t_interval,
    tango,
    wilson,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    successes, n = count
    reference = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, n, confidence=confidence)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert 0 <= ours.low <= successes / n <= ours.high <= 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_literal_sum_and_the_sign_test(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)
    if n:
        assert mcnemar_exact(b, c) == pytest.approx(binomtest(b, n).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n", "expected"),
    [
        # Closed forms of the score interval: no discordant pair gives z^2 / (n + z^2).
        (0, 0, 44, (-0.080296, 0.080296)),
        (44, 0, 44, (1 - 2 * 0.080296, 1.0)),
    ],
)
def test_tango_at_its_corners(only_a: int, only_b: int, n: int, expected: tuple[float, float]) -> None:
    interval = tango(only_a, only_b, n)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=2e-6)


def _profile_score(delta: float, a: int, b: int, n: int) -> float:
    """Score statistic with the nuisance probability found by numerical maximisation of the likelihood."""

    def negative_log_likelihood(p_b: float) -> float:
        parts = ((a, p_b + delta), (b, p_b), (n - a - b, 1 - 2 * p_b - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    best = minimize_scalar(negative_log_likelihood, bounds=(low, high), options={"xatol": 1e-12})
    return (a - b - n * delta) / math.sqrt(n * (2 * best.x + delta * (1 - delta)))


@pytest.mark.parametrize(
    ("a", "b", "n"), [(5, 9, 100), (1, 0, 44), (60, 30, 120), (3, 3, 12), (12, 40, 1000)]
)
def test_tango_bounds_solve_the_score_equation(a: int, b: int, n: int) -> None:
    interval = tango(a, b, n)
    assert _profile_score(interval.low, a, b, n) == pytest.approx(1.959964, abs=1e-3)
    assert _profile_score(interval.high, a, b, n) == pytest.approx(-1.959964, abs=1e-3)


@given(
    st.integers(1, 500).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n)).flatmap(
            lambda pair: st.tuples(st.just(pair[0]), st.integers(0, pair[1] - pair[0]), st.just(pair[1]))
        )
    )
)
def test_tango_contains_the_estimate_is_antisymmetric_and_agrees_with_the_score_test(
    case: tuple[int, int, int],
) -> None:
    a, b, n = case
    interval, mirrored = tango(a, b, n), tango(b, a, n)
    assert -1 <= interval.low <= (a - b) / n <= interval.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-7)
    score = 0 if a == b else abs(a - b) / math.sqrt(a + b)
    if abs(score - 1.959964) > 1e-4:
        assert (interval.low > 0 or interval.high < 0) == (score > 1.959964)


def test_tango_keeps_its_coverage_where_few_pairs_differ() -> None:
    generator = np.random.default_rng(0)
    draws = generator.multinomial(200, [0.04, 0.01, 0.95], size=2000)
    hits = 0
    for a, b, _ in draws:
        interval = tango(int(a), int(b), 200)
        hits += interval.low <= 0.03 <= interval.high
    assert 0.93 <= hits / 2000 <= 0.985


def test_paired_difference_counts_discordant_images() -> None:
    a = np.array([1, 1, 1, 0, 0, 1, 1, 1], dtype=bool)
    b = np.array([1, 0, 0, 1, 0, 0, 0, 1], dtype=bool)
    result = paired_difference(a, b)
    assert (result.only_a, result.only_b, result.n) == (4, 1, 8)
    assert result.difference == pytest.approx(3 / 8)
    assert result.p_value == pytest.approx(2 * (1 + 5) / 32)
    assert result.interval == tango(4, 1, 8)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_between_the_raw_and_bonferroni_values(values: list[float]) -> None:
    adjusted = holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(values) * p) or q == pytest.approx(max(adjusted))
    ranked = [q for _, q in sorted(zip(values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
    assert min(adjusted) == pytest.approx(min(1.0, len(values) * min(values)))


@given(st.integers(0, 200), st.sampled_from([0.8, 0.95]))
def test_poisson_bounds_leave_the_stated_tails(count: int, confidence: float) -> None:
    interval = poisson(count, confidence=confidence)
    tail = (1 - confidence) / 2
    assert poisson_law.cdf(count, interval.high) == pytest.approx(tail, rel=1e-6)
    if count:
        assert poisson_law.sf(count - 1, interval.low) == pytest.approx(tail, rel=1e-6)
    assert interval.low <= count <= interval.high


def test_poisson_without_any_count() -> None:
    assert (poisson(0).low, poisson(0).high) == pytest.approx((0, -math.log(0.025)))


def test_percentile_interval_is_the_central_part() -> None:
    interval = percentile_interval(np.arange(101.0), 50.0)
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))
    interval = percentile_interval([math.nan, *range(101)], 50.0, confidence=0.8)
    assert (interval.low, interval.high) == pytest.approx((10, 90))


def test_percentile_interval_holds_the_estimate() -> None:
    assert percentile_interval([1.0, 1.0, 1.0], 2.0).high == 2
    assert percentile_interval([1.0, 1.0, 1.0], 0.0).low == 0


accuracies = st.lists(st.tuples(*[st.integers(0, 10_000)] * 2), min_size=2, max_size=12)


@given(accuracies, st.sampled_from([0.8, 0.95, 0.99]))
def test_means_over_seeds_equal_scipy(counts: list[tuple[int, int]], confidence: float) -> None:
    a, b = ([count / 100 for count in side] for side in zip(*counts, strict=True))
    ours, error = t_interval(a, confidence=confidence), sem(a)
    if error > 1e-9:
        low, high = student.interval(confidence, len(a) - 1, np.mean(a), error)
        assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9)
    found = paired_mean_difference(a, b, confidence=confidence)
    assert (found.n, found.difference) == (len(a), pytest.approx(np.mean(a) - np.mean(b), abs=1e-9))
    if sem(np.subtract(a, b)) > 1e-9:
        reference = ttest_rel(a, b)
        assert found.p_value == pytest.approx(reference.pvalue, rel=1e-6)
        expected = reference.confidence_interval(confidence)
        assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected), abs=1e-9)


@given(accuracies)
def test_paired_means_are_antisymmetric_and_agree_with_their_interval(counts: list[tuple[int, int]]) -> None:
    a, b = ([float(count) for count in side] for side in zip(*counts, strict=True))
    found, mirrored = paired_mean_difference(a, b), paired_mean_difference(b, a)
    assert (mirrored.difference, mirrored.p_value) == (-found.difference, found.p_value)
    assert (mirrored.interval.low, mirrored.interval.high) == pytest.approx(
        (-found.interval.high, -found.interval.low)
    )
    assert found.interval.low <= found.difference <= found.interval.high
    assert 0 <= found.p_value <= 1
    if abs(found.p_value - 0.05) > 1e-9:
        assert (found.interval.low > 0 or found.interval.high < 0) == (found.p_value < 0.05)


def test_means_over_seeds_by_hand() -> None:
    # Differences 1, 2, 3: standard error 1 / sqrt(3), t = 2 sqrt(3); t of 97.5 % with 2 degrees is 4.3027.
    found = paired_mean_difference([93.0, 94.0, 96.0], [92.0, 92.0, 93.0])
    assert (found.difference, found.n) == (2, 3)
    assert found.p_value == pytest.approx(0.074180, abs=1e-6)
    half = 4.302653 / math.sqrt(3)
    assert (found.interval.low, found.interval.high) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_differences_without_spread() -> None:
    same = paired_mean_difference([90.0, 91.0], [90.0, 91.0])
    assert (same.difference, same.p_value, same.interval) == (0, 1, Interval(0, 0))
    shifted = paired_mean_difference([90.0, 91.0], [89.0, 90.0])
    assert (shifted.p_value, shifted.interval) == (0, Interval(1, 1))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.99, 0.99, True), (-1.0, 0.5, False), (0.2, 1.0, False), (0.2, 0.9, True), (-3.0, 3.0, False)],
)
def test_equivalence_needs_the_whole_interval(low: float, high: float, expected: bool) -> None:
    assert equivalent(Interval(low, high)) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda: poisson(-1),
        lambda: poisson(1, confidence=0.0),
        lambda: percentile_interval([], 1.0),
        lambda: percentile_interval([math.nan], 1.0),
        lambda: percentile_interval([1.0], math.nan),
        lambda: wilson(0, 0),
        lambda: wilson(3, 2),
        lambda: wilson(1, 2, confidence=1.0),
        lambda: mcnemar_exact(-1, 2),
        lambda: tango(2, 2, 3),
        lambda: paired_difference([True], [True, False]),
        lambda: paired_difference([], []),
        lambda: holm([0.5, 1.1]),
        lambda: t_interval([1.0]),
        lambda: t_interval([1.0, math.nan]),
        lambda: t_interval([1.0, math.inf]),
        lambda: t_interval([1.0, 2.0], confidence=1.0),
        lambda: paired_mean_difference([1.0, 2.0], [1.0]),
        lambda: paired_mean_difference([1.0], [1.0]),
    ],
)
def test_impossible_input_is_refused(call) -> None:
    with pytest.raises(UsageError):
        call()
