"""Limits come from the environment, or are refused by name."""

from __future__ import annotations

import pytest

from truekeep.server.limits import LIMITS_ENV, Budget, Limits, from_environment


def test_single_limits_are_changed() -> None:
    assert from_environment({}) == Limits()
    changed = from_environment({LIMITS_ENV: '{"rows": 5, "idle_seconds": 0.5}'})
    assert (changed.rows, changed.idle_seconds, changed.body_bytes) == (5, 0.5, Limits().body_bytes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "no JSON object"),
        ('{"row": 5}', "it holds: row"),
        ('{"rows": 5.5}', "rows must be a number of at least 0, whole"),
        ('{"rows": true}', "rows must be a number"),
        ('{"idle_seconds": -1}', "idle_seconds must be a number of at least 0$"),
        ('{"idle_seconds": "1"}', "idle_seconds must be a number"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_environment({LIMITS_ENV: text})


def test_a_budget_is_never_overdrawn() -> None:
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.take(4)
    budget.give_back(6)
    assert budget.taken == 4
