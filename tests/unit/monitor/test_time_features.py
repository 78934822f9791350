"""Of a feature of type Time the monitor watches nulls alone: that time has gone on is no finding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.monitor import made
from truekeep.contract.artifact import SignatureFeature
from truekeep.features import times
from truekeep.monitor.judge import Settings, judge
from truekeep.monitor.report import WindowReport
from truekeep.profiling.build import profile
from truekeep.profiling.schema import PREDICTION, Profile

DAY = 86_400_000_000
SETTINGS = Settings(min_rows=500, minimum_effect=0.02)
FEATURES = [*made.FEATURES, SignatureFeature(name="seen", type="Time")]


def moments(random: np.random.Generator, rows: int, first_day: int, nulls: float) -> Any:
    """As training reads them: int64 microseconds, `NO_TIME` where there is none."""
    found = (first_day + random.integers(0, 30, rows)) * DAY
    return np.where(random.random(rows) < nulls, times.NO_TIME, found)


@pytest.fixture(scope="module")
def there() -> Profile:
    random = np.random.default_rng(0)
    columns = made.draw(random, 20_000)
    columns["seen"] = moments(random, 20_000, 19_000, 0.02)
    return Profile.model_validate(profile(columns, FEATURES, columns[PREDICTION]))


def judged(there: Profile, nulls: float) -> WindowReport:
    """A window of half a year later; as the monitor counts a captured column."""
    random = np.random.default_rng(1)
    columns = made.draw(random, 5000)
    columns["seen"] = times.presence(moments(random, 5000, 19_200, nulls))
    return judge(there, made.counted(columns, there), SETTINGS)


def test_later_times_are_no_drift(there: Profile) -> None:
    report = judged(there, 0.02)
    assert [one for one in report.findings if one.column == "seen"] == []
    assert there.space is None or "seen" not in [column.name for column in there.space.columns]


def test_times_that_are_lost_are_found(there: Profile) -> None:
    found = [one for one in judged(there, 0.4).findings if one.column == "seen"]
    assert [one.kind for one in found] == ["DataQuality"], found
    assert found[0].statistic == "NullFraction"
    assert "% missing" in found[0].message
    assert "NaN" not in found[0].message
