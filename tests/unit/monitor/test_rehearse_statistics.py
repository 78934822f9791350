"""What a rehearsal says for sure of a few requests."""

from __future__ import annotations

import numpy as np
import pytest

from truekeep.monitor.rehearse import _probabilities, distance, distance_at_least, late_at_least

RANDOM = np.random.default_rng(5)


def test_a_real_shift_is_at_least_nearly_what_it_is() -> None:
    before = RANDOM.random(1000)
    after = np.clip(before + 0.4, 0, 1)
    each = np.arange(1000)
    assert distance(before, after) == pytest.approx(0.4, abs=0.05)
    assert 0.3 < distance_at_least(before, after, each) <= distance(before, after)


def test_a_few_rows_show_little() -> None:
    before = np.array([0.3, 0.5, 0.7])
    assert distance(before, before + 0.01) > 0.3
    assert distance_at_least(before, before + 0.01, np.arange(3)) == 0


def test_rows_of_one_request_stand_or_fall_together() -> None:
    before = np.repeat(RANDOM.random(10), 100)
    after = before.copy()
    after[:300] += 0.5  # three requests of ten moved
    alone = distance_at_least(before, after, np.arange(1000))
    together = distance_at_least(before, after, np.repeat(np.arange(10), 100))
    assert alone > 0.1
    assert together == 0


def test_the_bound_holds_where_nothing_moved_on_the_whole() -> None:
    above = 0
    for _ in range(200):
        before, after = RANDOM.random(200), RANDOM.random(200)
        above += distance_at_least(before, after, np.arange(200)) > 0.03
    assert above <= 4


def test_what_the_slowest_show() -> None:
    assert late_at_least([]) == 0
    assert late_at_least([0.001] * 99 + [9.0]) == 0.001, "one slow start of a hundred may be chance"
    assert late_at_least([0.001] * 90 + [9.0] * 10) == 9.0
    assert late_at_least([0.08] * 10) == 0.08


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"outputs": [{"data": [0.1]}]}', b'{"outputs": [{"data": [0.1, "x"]}]}', b"\xff"]
)
def test_an_answer_of_the_wrong_form_is_none(content: bytes) -> None:
    assert _probabilities(content, 2) is None
    assert _probabilities(b'{"outputs": [{"data": [0.1, 1]}]}', 2) == [0.1, 1.0]
