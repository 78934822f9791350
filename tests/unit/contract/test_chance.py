"""Intervals of fractions against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from truekeep.contract.chance import interval, surely_more


@pytest.mark.parametrize(("hits", "tries"), [(0, 10), (1, 20), (5, 20), (99, 100), (20, 20)])
def test_the_interval_is_wilsons(hits: int, tries: int) -> None:
    low, high = interval(hits, tries, 2.0)
    theirs = stats.binomtest(hits, tries).proportion_ci(2 * stats.norm.cdf(2.0) - 1, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    assert interval(0, 0) == (0.0, 1.0)


def test_equal_revisions_are_hardly_ever_told_apart() -> None:
    random = np.random.default_rng(7)
    draws = 4000
    ours, theirs = random.binomial(60, 0.05, draws), random.binomial(120, 0.05, draws)
    alarms = sum(surely_more((a, 60), (b, 120)) > 0 for a, b in zip(ours, theirs, strict=True))
    assert alarms / draws < 0.005


def test_a_broken_revision_is_told_apart_by_few_requests() -> None:
    assert surely_more((20, 20), (0, 40)) > 0.5
    assert surely_more((10, 20), (0, 40)) > 0.1
    assert surely_more((1, 20), (0, 40)) < 0.01, "one failure of twenty may be chance"
