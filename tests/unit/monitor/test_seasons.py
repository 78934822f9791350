"""The same hours of the week, and blackouts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.monitor import bikes, made
from tests.unit.monitor.test_look import MONDAY, NOW, Scene, quiet
from truekeep.api.driftpolicy import Blackout, DataDrift
from truekeep.contract.requests import MonitorRequest
from truekeep.monitor import seasons
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.look import look
from truekeep.profiling.schema import PREDICTION

HALF_DAY = timedelta(hours=12)


def test_windows_at_the_same_hours() -> None:
    assert seasons.before(1000, 24, 3) == [993, 986, 979]
    assert seasons.before(1000, 168, 2) == [999, 998]
    assert seasons.before(1000, 672, 4) == [999]
    assert seasons.before(1000, 672, 9) == [999, 998]


def test_windows_add_up_to_what_they_are_together() -> None:
    there = made.reference(20_000)
    rng = np.random.default_rng(1)
    parts = [made.draw(rng, 1500) for _ in range(3)]
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    whole = made.counted(together, there)
    added = seasons.merged(there, [made.counted(part, there) for part in parts], prediction=True)
    assert added.rows == 4500
    for column in added.columns:
        expected = whole.column(column.name)
        assert expected is not None
        assert column.numeric.counts == expected.numeric.counts
        assert column.categorical.by_value == expected.categorical.by_value
    now = made.counted(made.draw(rng, 2000), there)
    assert judge(there, now, Settings(), added).verdict == "NoDrift"
    without = seasons.merged(there, [made.counted(parts[0], there)], prediction=False)
    assert without.column(PREDICTION) == there.column(PREDICTION)


def test_what_is_broken_is_for_training_to_say() -> None:
    """Weeks of nulls make nulls no fair comparison for what the model needs."""
    there = made.reference(20_000)
    rng = np.random.default_rng(2)
    holed = [made.draw(rng, 1500) | {"normal": np.full(1500, np.nan)} for _ in range(3)]
    season = seasons.merged(there, [made.counted(part, there) for part in holed[:2]], prediction=True)
    assert judge(there, made.counted(holed[2], there), Settings(), season).verdict == "DataQuality"


class Nights(Scene):
    """A world whose nights are not its days: 12-hour windows."""

    def half(self, number: int, **changed: Any) -> None:
        start = MONDAY + number * HALF_DAY
        night = number % 2 == 0
        own: dict[str, Any] = {"normal": lambda x: x - 1.5} if night else {}
        self.capture(start, start + HALF_DAY, 700, seed=number, **(own | changed))

    def ask(self, reference: str = "SameHoursOfWeek", **changed: Any) -> MonitorRequest:
        drift = DataDrift(minimum_effect="0.1", reference=reference, reference_weeks=2)
        return self.request(hours=12, min_rows=500).model_copy(update={"drift": drift} | changed)


@pytest.fixture
def nights(versitygw: Versitygw) -> Nights:
    return Nights(versitygw)


def test_night_is_no_drift_from_night(nights: Nights) -> None:
    moved = 14 * 3 + 4  # a night of the fourth week
    for number in range(14 * 3 + 7):
        nights.half(number, **({"normal": lambda x: x + 0.5} if number == moved else {}))
    result = look(nights.ask(), NOW, quiet)
    verdicts = {(window.start - MONDAY) // HALF_DAY: window.verdict for window in result.windows}
    assert all(verdicts[number] == "NoDrift" for number in range(28, moved)), "two weeks are there to compare with"
    assert verdicts[moved] == "Drift"
    assert result.windows[0].verdict == "NoDrift"
    page = nights.everything()
    assert any(key.endswith(".html") for key in page)


def test_against_training_every_night_would_alarm(nights: Nights) -> None:
    for number in range(7):
        nights.half(number)
    result = look(nights.ask("Training"), NOW, quiet)
    assert [window.verdict for window in reversed(result.windows)] == ["Drift", "NoDrift"] * 3
    other = look(nights.ask().model_copy(update={"policy_uid": "uid-2"}), NOW, quiet)
    assert [window.verdict for window in reversed(other.windows)] == ["Drift", "NoDrift"] * 3, "nothing came before"


def at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def pause(start: str, end: str, repeats: str = "Never") -> tuple[Blackout, ...]:
    return (Blackout.model_validate({"name": "x", "start": at(start), "end": at(end), "repeats": repeats}),)


@pytest.mark.parametrize(
    ("blackout", "start", "end", "touches"),
    [
        (pause("2013-03-05", "2013-03-06"), "2013-03-04", "2013-03-11", True),
        (pause("2013-03-05", "2013-03-06"), "2013-03-11", "2013-03-18", False),
        (pause("2013-03-11", "2013-03-12"), "2013-03-04", "2013-03-11", False),
        (pause("2013-03-01", "2013-04-01"), "2013-03-11", "2013-03-12", True),
        (pause("2013-03-05", "2013-03-06", "Weekly"), "2014-06-03", "2014-06-04", True),
        (pause("2013-03-05", "2013-03-06", "Weekly"), "2014-06-04", "2014-06-05", False),
        (pause("2013-03-05", "2013-03-06", "Weekly"), "2013-02-26", "2013-02-27", False),
        (pause("2012-12-24", "2013-01-02", "Yearly"), "2016-01-01", "2016-01-02", True),
        (pause("2012-12-24", "2013-01-02", "Yearly"), "2015-12-31", "2016-01-01", True),
        (pause("2012-12-24", "2013-01-02", "Yearly"), "2016-01-02", "2016-01-03", False),
        (pause("2012-02-29", "2012-03-01", "Yearly"), "2013-02-28", "2013-03-01", True),
        (pause("2012-12-24", "2013-01-02", "Yearly"), "2011-12-24", "2011-12-25", False),
    ],
)
def test_what_a_blackout_touches(blackout: tuple[Blackout, ...], start: str, end: str, touches: bool) -> None:
    assert (seasons.blackout(blackout, at(start), at(end)) == "x") == touches


def test_in_a_blackout_all_is_told_and_nothing_counts(versitygw: Versitygw) -> None:
    scene = Scene(versitygw)
    scene.week(0, normal=lambda x: x * np.nan)
    scene.week(1, normal=lambda x: x + 1)
    scene.week(2)
    request = scene.request().model_copy(update={"blackouts": pause("2013-03-05", "2013-03-12")})
    result = look(request, NOW, quiet)
    assert [window.verdict for window in result.windows] == ["Blackout", "Blackout"]
    assert [window.kinds for window in result.windows] == [[], []]
    assert result.findings[0].column == "normal"


def test_hourly_bike_counts_have_a_season_and_no_alarm() -> None:
    """Spring brings four times the riders of January. Against January and February every week of the year drifts;
    against the four weeks before, no two weeks in a row."""
    weeks = bikes.weeks()
    assert len(weeks) == 42
    assert sum(week.training == "Drift" for week in weeks) >= 40
    assert sum(week.season == "Drift" for week in weeks) <= 5
    assert not any(one.season == other.season == "Drift" for one, other in pairwise(weeks))
