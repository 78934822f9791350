"""Counts in buckets against the values themselves."""

from __future__ import annotations

import bisect
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from truekeep.domain.histogram import Histogram, distance, distance_noise

BOUNDS = (0.1, 0.2, 0.5, 1.0, 2.0)
values = st.lists(st.floats(0, 3), min_size=1, max_size=80)


def histogram(numbers: list[float], bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    counts = [0] * (len(bounds) + 1)
    for number in numbers:
        counts[bisect.bisect_left(bounds, number)] += 1
    return Histogram(bounds, tuple(counts))


@given(values, st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_values_own(numbers: list[float], fraction: float) -> None:
    found = histogram(numbers).quantile(fraction)
    own = float(np.quantile(numbers, fraction, method="inverted_cdf"))
    place = bisect.bisect_left(BOUNDS, own)
    low = BOUNDS[place - 1] if place else 0.0
    high = BOUNDS[place] if place < len(BOUNDS) else BOUNDS[-1]
    assert found is not None
    assert low - 1e-9 <= found <= high + 1e-9


@given(values, st.sampled_from([*BOUNDS, 0.05, 0.3, 1.7, 2.5]))
def test_above_is_exact_at_bounds_and_close_between(numbers: list[float], value: float) -> None:
    seen, own = histogram(numbers).above(value), sum(number > value for number in numbers)
    if value in BOUNDS:
        assert seen == own
    else:
        place = bisect.bisect_left(BOUNDS, value)
        assert abs(seen - own) <= histogram(numbers).counts[place] + 1e-9


@given(values, values)
def test_the_distance_is_at_most_that_of_the_values(one: list[float], other: list[float]) -> None:
    found = distance(histogram(one), histogram(other))
    assert found is not None
    places = np.unique([*one, *other])
    own = np.abs((np.array(one)[:, None] <= places).mean(0) - (np.array(other)[:, None] <= places).mean(0)).max()
    assert 0 <= found <= own + 1e-9


def test_distance_is_none_where_nothing_can_be_compared() -> None:
    assert distance(Histogram(), Histogram()) is None
    assert distance(histogram([1.0]), Histogram()) is None
    assert distance(histogram([1.0]), histogram([1.0], (0.3,))) is None


def test_sums() -> None:
    one = histogram([0.05, 0.3])
    assert one.plus(Histogram()) == one == Histogram().plus(one)
    assert one.plus(one).counts == (2, 0, 2, 0, 0, 0)
    assert one.plus(histogram([1.0], (0.3,))) == one, "other buckets can't be sorted in"


def test_noise_of_the_distance() -> None:
    random = np.random.default_rng(7)
    for sizes in ((50, 50), (400, 100)):
        found = [
            stats.ks_2samp(random.random(sizes[0]), random.random(sizes[1])).statistic > distance_noise(*sizes)
            for _ in range(500)
        ]
        assert sum(found) <= 5
    assert distance_noise(0, 10) == math.inf
    assert distance_noise(10_000, 10_000) < 0.05
