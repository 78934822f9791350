from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from truekeep.api.driftpolicy import MonitorWindow
from truekeep.contract.layout import CaptureName
from truekeep.monitor.windows import HOUR, LATEST, Cut, Seen, milliseconds, moment, plausible

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def ms(*when: int) -> int:
    return milliseconds(datetime(*when, tzinfo=UTC))  # type: ignore[arg-type]


@pytest.mark.parametrize("hours", [1, 5, 24, 168, 8760])
def test_windows_tile_time(hours: int) -> None:
    cut = Cut(hours)
    for time in (ms(2013, 3, 4), ms(1969, 12, 31, 23), ms(2026, 7, 1, 13) + 1, 0, -1):
        index = cut.index(time)
        assert cut.start(index) <= time < cut.end(index)
        assert cut.end(index) == cut.start(index + 1)
        assert cut.index(cut.start(index)) == index
        assert moment(cut.start(index)).minute == 0


def test_a_week_is_from_monday_to_monday() -> None:
    cut = Cut(168)
    assert moment(cut.start(cut.index(ms(2013, 3, 10, 23, 59)))) == datetime(2013, 3, 4, tzinfo=UTC)
    assert moment(cut.start(cut.index(ms(2013, 3, 11)))) == datetime(2013, 3, 11, tzinfo=UTC)


def test_touched_windows() -> None:
    cut = Cut(24)
    name = CaptureName(ms(2013, 3, 4, 23), ms(2013, 3, 6, 1), "pod", 1)
    assert len(cut.touched(name)) == 3


def seen(*names: CaptureName, uploaded: datetime = NOW, lateness: int = 0, idle: int = 600) -> Seen:
    found = Seen(MonitorWindow(hours=24, allowed_lateness_seconds=lateness, idle_seconds=idle), NOW)
    for name in names:
        found.add(name, uploaded)
    return found


def test_a_window_closes_when_the_newest_event_passes_its_end_and_the_lateness() -> None:
    end = ms(2013, 3, 5)
    for newest, lateness, closed in ((end - 1, 0, False), (end, 0, True), (end, 60, False), (end + 60_000, 60, True)):
        clock = seen(CaptureName(0, newest, "p", 1), lateness=lateness).clock()
        assert clock.closes(end) is closed
        assert clock.passed(end) is closed


def test_idleness_closes_what_is_past_by_the_wall_clock() -> None:
    name = CaptureName(0, ms(2013, 3, 4, 5), "p", 1)
    busy, idle = (seen(name, uploaded=NOW - timedelta(seconds=seconds)).clock() for seconds in (599, 600))
    end = ms(2013, 3, 5)
    assert not busy.closes(end)
    assert idle.closes(end)
    assert not idle.passed(end)
    live = seen(CaptureName(0, milliseconds(NOW) - HOUR, "p", 1), uploaded=NOW - timedelta(hours=1)).clock()
    assert not live.closes(ms(2026, 3, 3))  # today is not over, though nobody asks at night


def test_an_event_of_a_far_future_closes_nothing() -> None:
    future = CaptureName(ms(2013, 3, 4), ms(2199, 1, 1), "p", 1)
    clock = seen(future).clock()
    assert clock.newest_event == ms(2013, 3, 4)
    assert not clock.closes(ms(2013, 3, 5))
    tomorrow = milliseconds(NOW + timedelta(hours=20))  # a schedule is asked for ahead of time
    assert seen(CaptureName(tomorrow, tomorrow, "p", 1)).clock().newest_event == tomorrow


def test_nothing_captured_closes_nothing() -> None:
    assert not seen().clock().closes(0)


@pytest.mark.parametrize(
    ("first", "last", "good"),
    [(0, 0, True), (5, 4, False), (-(10**20), 0, False), (0, LATEST + 1, False), (0, 10**300, False)],
)
def test_names_that_make_no_sense(first: int, last: int, good: bool) -> None:
    assert plausible(CaptureName(first, last, "p", 1)) is good
