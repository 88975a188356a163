"""Intervals and tests: accuracies on the same images, means over seeds, counts, resampled estimates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tdsnn.errors import UsageError

EQUIVALENCE_MARGIN = 1.0
"""Percentage points of accuracy below which two models count as equal in practice."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of the estimate."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Accuracy of A minus accuracy of B on the same n images."""

    difference: float
    """Fraction, -1 to 1."""
    interval: Interval
    p_value: float
    """Exact McNemar test, two-sided, not corrected for multiple comparisons."""
    n: int
    only_a: int
    """Images that A alone gets right."""
    only_b: int


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """Mean over n seeds of what A has more than B, in the unit of the values."""

    difference: float
    interval: Interval
    p_value: float
    """Paired t-test, two-sided."""
    n: int


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion, as fractions (Wilson, 1927, doi:10.1080/01621459.1927.10502953).

    Raises:
        UsageError: ``n`` below 1, or ``successes`` outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise UsageError(f"A proportion needs n >= 1 and 0 <= successes <= n, not {successes} of {n}.")
    z = _z(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The bounds at 0 and n are exact; rounding would leave them a hair inside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that both counts of discordant pairs come from a fair coin.

    Twice the smaller binomial tail, at most 1 (McNemar, 1947, doi:10.1007/BF02295996); 1 without any
    discordant pair.

    Raises:
        UsageError: a negative count.
    """
    if min(only_a, only_b) < 0:
        raise UsageError(f"Counts of discordant pairs cannot be negative: {only_a}, {only_b}.")
    return min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def tango(only_a: int, only_b: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of the difference of two paired proportions, as fractions.

    Inverts the score test of Tango (1998, Statistics in Medicine 17(8), 891-908), which keeps its coverage
    with few discordant pairs, where the Wald interval collapses.

    Args:
        only_a, only_b: pairs in which A alone, or B alone, is right.
        n: all pairs.

    Raises:
        UsageError: ``n`` below 1, a negative count, or more discordant pairs than pairs.
    """
    if n < 1 or min(only_a, only_b) < 0 or only_a + only_b > n:
        raise UsageError(
            f"Paired proportions need n >= 1 and 0 <= only_a + only_b <= n, not {only_a} + {only_b} of {n}."
        )
    from scipy.optimize import brentq  # slow to import, and most commands compare nothing

    z = _z(confidence)
    estimate = (only_a - only_b) / n
    edge = 1 - 1e-12

    def above(delta: float) -> float:
        return _tango_score(delta, only_a, only_b, n) - z

    def below(delta: float) -> float:
        return _tango_score(delta, only_a, only_b, n) + z

    low = -1.0 if only_b == n else float(brentq(above, -edge, estimate))
    high = 1.0 if only_a == n else float(brentq(below, estimate, edge))
    return Interval(low, high)


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """Compare two models on the same images.

    Args:
        a, b: (n,) bool, whether each model is right on each image.

    Raises:
        UsageError: the arrays are empty or differ in length.
    """
    right_a, right_b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1 or not right_a.size:
        raise UsageError(
            f"A paired comparison needs two equally long rows of verdicts, not shapes {right_a.shape} "
            f"and {right_b.shape}."
        )
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return PairedDifference(
        difference=(only_a - only_b) / right_a.size,
        interval=tango(only_a, only_b, right_a.size, confidence=confidence),
        p_value=mcnemar_exact(only_a, only_b),
        n=right_a.size,
        only_a=only_a,
        only_b=only_b,
    )


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Interval of the mean of independent values, in their unit (Student, 1908, doi:10.2307/2331554).

    Raises:
        UsageError: fewer than two values, or one that is not finite.
    """
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        raise UsageError(f"An interval of a mean needs two or more finite values, not {list(values)}.")
    half = float(special.stdtrit(n - 1, (1 + _level(confidence)) / 2)) * _standard_error(values)
    mean = math.fsum(values) / n
    return Interval(mean - half, mean + half)


def paired_mean_difference(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95
) -> MeanDifference:
    """Compare two models over the same seeds: paired t-test, and its interval of the mean difference.

    Seeds that all differ by the same amount leave no doubt to this test: p is 0, or 1 if that amount is 0.

    Args:
        a, b: one value for each seed, in the same order.

    Raises:
        UsageError: rows of different length, and as :func:`t_interval`.
    """
    if len(a) != len(b):
        raise UsageError(
            f"Paired means need as many values of one model as of the other: {len(a)}, {len(b)}."
        )
    differences = [one - other for one, other in zip(a, b, strict=True)]
    interval = t_interval(differences, confidence=confidence)
    mean, error = math.fsum(differences) / len(differences), _standard_error(differences)
    p_value = (
        2 * float(special.stdtr(len(differences) - 1, -abs(mean) / error)) if error else float(mean == 0)
    )
    return MeanDifference(difference=mean, interval=interval, p_value=p_value, n=len(differences))


def equivalent(interval: Interval, *, margin: float = EQUIVALENCE_MARGIN) -> bool:
    """Whether an interval of a difference lies wholly inside plus or minus ``margin``.

    With a 95 % interval this is stricter than two one-sided tests at 5 %, which use the 90 % interval
    (TOST; Schuirmann, 1987, doi:10.1007/BF01068419).
    """
    return -margin < interval.low and interval.high < margin


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the given order (Holm, 1979, jstor:4615733).

    Raises:
        UsageError: a value outside [0, 1].
    """
    if any(not 0 <= p <= 1 for p in p_values):
        raise UsageError(f"p-values must lie in [0, 1]: {list(p_values)}.")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def poisson(count: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of the mean of a Poisson count (Garwood, 1936, doi:10.1093/biomet/28.3-4.437).

    Raises:
        UsageError: a negative count.
    """
    if count < 0:
        raise UsageError(f"A count cannot be negative: {count}.")
    tail = (1 - _level(confidence)) / 2
    low = float(special.gammaincinv(count, tail)) if count else 0.0
    return Interval(low, float(special.gammainccinv(count + 1, tail)))


def percentile_interval(samples: ArrayLike, estimate: float, *, confidence: float = 0.95) -> Interval:
    """Central part of resampled estimates (Efron, 1979, doi:10.1214/aos/1176344552).

    Widened to hold the estimate, which resampling noise can leave on one side of all resamples.

    Args:
        samples: (R,); NaN, where a resample had no estimate, does not count.

    Raises:
        UsageError: no sample is finite, or the estimate is not.
    """
    values = np.asarray(samples, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0 or not math.isfinite(estimate):
        raise UsageError(
            f"An interval needs a finite estimate and resamples, not {estimate} and {values.size}."
        )
    tail = (1 - _level(confidence)) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(min(float(low), estimate), max(float(high), estimate))


def paired_bootstrap(
    differences_NK: ArrayLike, *, seed: int, resamples: int = 2000, confidence: float = 0.95
) -> tuple[Interval, ...]:
    """Intervals of K means over the same n images, by drawing images with replacement; see
    :func:`percentile_interval`.

    Args:
        differences_NK: (n, K) finite, of two models on the same images.

    Raises:
        UsageError: no image, or values that are not finite.
    """
    values = np.asarray(differences_NK, dtype=np.float64)
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise UsageError(f"A bootstrap needs finite values (n, K) of n >= 1, not shape {values.shape}.")
    means_RK = resampled_means(values, seed=seed, resamples=resamples)
    return tuple(
        percentile_interval(one, float(mean), confidence=confidence)
        for one, mean in zip(means_RK.T, values.mean(0), strict=True)
    )


def resampled_means(values_NK: NDArray[np.float64], *, seed: int, resamples: int) -> NDArray[np.float64]:
    """(resamples, K): means over n images, drawn with replacement; equal seeds draw the same for every K."""
    n = len(values_NK)
    drawn_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.asarray(drawn_RN @ values_NK / n)


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UsageError(f"A confidence level lies between 0 and 1, not {confidence:g}.")
    return confidence


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def _z(confidence: float) -> float:
    return float(special.ndtri((1 + _level(confidence)) / 2))


def _tango_score(delta: float, only_a: int, only_b: int, n: int) -> float:
    """Score statistic of the hypothesis that the true difference is ``delta``."""
    # Maximum-likelihood probability of "B alone is right" under the hypothesis: the larger quadratic root.
    quadratic = 2 * n
    linear = -only_a - only_b + (2 * n - only_a + only_b) * delta
    constant = -only_b * delta * (1 - delta)
    root = (math.sqrt(max(0.0, linear**2 - 4 * quadratic * constant)) - linear) / (2 * quadratic)
    variance = n * (2 * root + delta * (1 - delta))
    offset = only_a - only_b - n * delta
    if variance <= 0:
        return 0.0 if offset == 0 else math.copysign(math.inf, offset)
    return offset / math.sqrt(variance)
