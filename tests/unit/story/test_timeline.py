from __future__ import annotations

import pytest

from tests.story.timeline import Timeline, cost


def test_the_loop_costs_what_is_neither_fitting_nor_declared() -> None:
    spent = cost("2026-01-01T10:00:00Z", "2026-01-01T10:01:00Z", "7.5", [15, 20])
    assert (spent.total, spent.loop) == (60, 17.5)
    assert "= 17.5 s (goal: at most 30 s)" in spent.words()


def test_a_promotion_before_the_breach_is_no_cost() -> None:
    with pytest.raises(ValueError, match="before the breach"):
        cost("2026-01-01T10:00:01Z", "2026-01-01T10:00:00Z", None, [])


def test_moments_are_told_in_the_order_of_time() -> None:
    timeline = Timeline()
    timeline.add("2026-01-01T10:01:05Z", "second")
    timeline.add("2026-01-01T10:00:00Z", "first")
    timeline.add("2026-01-01T10:11:05Z", "third")
    assert timeline.rows() == [("0:00", "+0 s", "first"), ("1:05", "+65 s", "second"), ("11:05", "+600 s", "third")]


def test_no_moments_no_rows() -> None:
    assert Timeline().rows() == []
