from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from truekeep.cluster.clock import Clock

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Machine:
    """Time passes; `wrong` is how far its clock of the day is off."""

    passed: float = 0.0
    wrong: timedelta = timedelta()

    def own(self) -> datetime:
        return self.true + self.wrong

    @property
    def true(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    def clock(self) -> Clock:
        return Clock(self.own, lambda: 7.0 + self.passed)


def test_until_the_api_server_answered_it_is_the_machines() -> None:
    machine = Machine(wrong=HOUR)
    assert machine.clock().now() == NOON + HOUR


@pytest.mark.parametrize("seconds", [-20, 0, 0.7, 20])
def test_where_they_agree_about_it_is_the_machines_to_the_fraction(seconds: float) -> None:
    machine = Machine(wrong=timedelta(seconds=seconds))
    clock = machine.clock()
    clock.heard(format_datetime(NOON, usegmt=True))
    machine.passed = 100.25
    assert clock.now() == machine.own()


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_a_clock_that_is_set_moves_nothing_not_even_until_the_next_answer(wrong: timedelta) -> None:
    machine = Machine()
    clock = machine.clock()
    clock.heard(format_datetime(NOON, usegmt=True))
    machine.passed = 60
    before = clock.now()
    machine.wrong = wrong
    assert clock.now() == before == machine.true
    machine.passed = 75
    assert clock.now() == machine.true
    machine.wrong = timedelta()
    assert clock.now() == machine.true


def test_a_clock_that_was_never_right_is_contradicted_by_the_first_answer(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(wrong=-HOUR)
    clock = machine.clock()
    clock.heard(format_datetime(NOON, usegmt=True))
    assert clock.now() == NOON
    assert clock.now() == NOON
    assert [record.getMessage() for record in caplog.records] == [
        "the clock here is -3600 s off the API server's; decisions go by that one"
    ]


def test_the_api_servers_own_clock_may_be_set_and_is_followed() -> None:
    machine = Machine(wrong=HOUR)
    clock = machine.clock()
    clock.heard(format_datetime(NOON, usegmt=True))
    clock.heard(format_datetime(NOON + 2 * HOUR, usegmt=True))
    assert clock.now() == NOON + 2 * HOUR


@pytest.mark.parametrize("date", [None, "", "tomorrow", "Mon, 99 Jan 2026 12:00:00 GMT"])
def test_what_is_no_date_tells_nothing(date: str | None) -> None:
    machine = Machine(wrong=HOUR)
    clock = machine.clock()
    clock.heard(date)
    assert clock.now() == machine.own()
