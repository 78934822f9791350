"""Real data that drifts by itself: a profile of January and February, and the weeks from March on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.monitor import flights
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.report import WindowReport
from truekeep.profiling.build import profile, window
from truekeep.profiling.schema import PREDICTION, Profile


def reports(minimum_effect: float, until: str) -> dict[str, WindowReport]:
    """By the week's Monday. Predictions take no part here: they are drawn."""
    table = flights.table()
    training = table[table.scheduled_at < "2013-03-01"]
    rng = np.random.default_rng(0)
    there = Profile.model_validate(profile(flights.columns(training), flights.FEATURES, rng.beta(1, 4, len(training))))
    settings = Settings(min_rows=2000, minimum_effect=minimum_effect)
    found = {}
    weeks = table[(table.scheduled_at >= "2013-03-04") & (table.scheduled_at < until)].groupby("week")
    for week, rows in weeks:
        columns = flights.columns(rows) | {PREDICTION: rng.beta(1, 4, len(rows))}
        found[flights.week_start(week).isoformat()] = judge(there, window(columns, there), settings)
    return found


@pytest.fixture(scope="module")
def spring() -> dict[str, WindowReport]:
    return reports(0.65, "2013-07-01")


def test_march_is_quiet_and_spring_is_found(spring: dict[str, WindowReport]) -> None:
    verdicts = {week: report.verdict for week, report in spring.items()}
    assert [verdicts[week] for week in ("2013-03-04", "2013-03-11", "2013-03-18", "2013-03-25", "2013-04-01")] == [
        "NoDrift"
    ] * 5
    assert {verdict for week, verdict in verdicts.items() if week >= "2013-04-08"} == {"Drift"}


def test_the_finding_names_the_weather(spring: dict[str, WindowReport]) -> None:
    first, june = spring["2013-04-08"], spring["2013-06-24"]
    assert first.findings[0].message == "`temp`: median 35.96 → 55.19, 51 % above the old 99th percentile"
    assert {f.column for f in june.findings if f.severity == "Breach"} == {"temp", "dewp"}
    assert june.findings[0].effect > 0.99


def test_new_destinations_do_not_block_retraining(spring: dict[str, WindowReport]) -> None:
    dest = {week: next(c for c in report.columns if c.name == "dest") for week, report in spring.items()}
    assert dest["2013-06-24"].window.unknown == pytest.approx(0.007, abs=0.002)
    assert all(report.verdict != "DataQuality" for report in spring.values())


def test_a_small_threshold_finds_every_week_because_weather_differs_every_week() -> None:
    assert all(report.verdict == "Drift" for report in reports(0.1, "2013-04-08").values())
