"""The serving bench in small, for `make bench`: that it measures, not how fast anything is."""

from __future__ import annotations

import numpy as np

from tests.bench.serving import measure, report
from tests.bench.serving.contenders import CAPTURING, ECHO, OURS, PLAIN
from tests.bench.serving.openloop import judged


def hit(number: int, left: float, taken: float, status: int = 200) -> list[str]:
    """A line of vegeta's CSV. Times in milliseconds."""
    return [str(int(left * 1e6)), str(status), str(int(taken * 1e6)), "0", "0", "", "", "", str(number)]


def test_a_sender_that_is_held_up_hides_nothing() -> None:
    """Ten requests, one a millisecond; from the fourth on the sender waited 50 ms and then sent them all at once."""
    lines = [hit(number, number if number < 3 else max(53, number), 1) for number in range(10)]
    found = judged(lines, 1000)
    assert np.allclose(found.apparent, 1)
    assert np.allclose(found.latency, [1, 1, 1, 51, 50, 49, 48, 47, 46, 45])
    assert found.failures == {}


def test_failures_are_counted_by_their_kind() -> None:
    found = judged([hit(0, 0, 1), hit(1, 1, 1, 500), hit(2, 2, 1, 500), hit(3, 3, 1, 0)], 1000)
    assert sum(found.failures.values()) == 3
    assert found.failures["500 "] == 2


def cell(rate: float, p50: float = 1, p99: float = 2, dropped: int = 0) -> measure.Measured:
    return measure.Measured(rate, p50, p99, 0, 1e6 / rate, dropped)


def test_goals_are_missed_and_met() -> None:
    cells = {
        (1, ECHO, 16): cell(1000), (1, OURS, 16): cell(600, p99=20), (1, CAPTURING, 16): cell(530),
        (1, PLAIN, 1): cell(30, p50=25), (1, PLAIN, 16): cell(50), (100, OURS, 16): cell(300),
        (100, PLAIN, 16): cell(29), (100, CAPTURING, 16): cell(290, dropped=1),
    }  # fmt: skip
    assert [goal.met for goal in report.goals(cells)] == [True, False, True, False, True, False]
    assert len(list(report.table(cells))) == 1 + len(cells)
    assert "rows NOT CAPTURED" in "\n".join(report.table(cells))


def test_medians() -> None:
    found = measure.median([cell(10, dropped=1), cell(30), cell(20, dropped=2)])
    assert (found.rate, found.dropped) == (20, 3)
