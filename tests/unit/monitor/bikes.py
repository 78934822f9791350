"""Rides in each hour of 2011 (see extract/README.md), and how the weeks from March on are judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from truekeep.contract.artifact import SignatureFeature
from truekeep.monitor import seasons
from truekeep.monitor.judge import Settings, judge
from truekeep.profiling.build import profile, window
from truekeep.profiling.schema import PREDICTION, Profile

MONDAY = pd.Timestamp("1970-01-05", tz="UTC")
FEATURES = [SignatureFeature(name=name, type="Number") for name in ("hour", "bikers", "casual", "registered")]
MINIMUM_EFFECT = 0.2
REFERENCE_WEEKS = 4


@dataclass(frozen=True)
class Week:
    """One of them: what is said of it against training, and against the weeks before."""

    start: str
    riders: float  # median of an hour
    training: str
    season: str
    effect_of_training: float  # the largest of the columns
    effect_of_season: float


def table() -> pd.DataFrame:
    """A row an hour, with the number of its week."""
    found = pd.read_csv(Path(__file__).parent / "extract/bikes-2011.csv.gz")
    hours = pd.to_timedelta((found.day - 1) * 24 + found.hour, unit="h")
    found["at"] = pd.Timestamp("2011-01-01", tz="UTC") + hours
    found["bikers"] = found.casual + found.registered
    found["week"] = (found["at"] - MONDAY) // timedelta(weeks=1)
    return found


def weeks() -> list[Week]:
    """Against January and February, and against the four weeks before."""
    hourly = table()
    training = hourly[hourly["at"] < "2011-03-01"]
    drawn = np.random.default_rng(0).random(len(training))  # stands for predictions, which take no part
    there = Profile.model_validate(profile(_columns(training), FEATURES, drawn))
    settings = Settings(min_rows=100, minimum_effect=MINIMUM_EFFECT, dropped=frozenset({PREDICTION}))
    counted = {int(week): window(_columns(rows), there) for week, rows in hourly.groupby("week") if len(rows) > 150}
    first = int(hourly[hourly["at"] >= "2011-03-07"].week.min())
    found = []
    for week in range(first, max(counted) + 1):
        earlier = [counted[one] for one in seasons.before(week, 168, REFERENCE_WEEKS)]
        plain = judge(there, counted[week], settings)
        seasonal = judge(there, counted[week], settings, seasons.merged(there, earlier, prediction=False))
        effects = [max(one.effect or 0.0 for one in report.columns) for report in (plain, seasonal)]
        riders = float(hourly[hourly.week == week].bikers.median())
        start = f"{MONDAY + timedelta(weeks=week):%Y-%m-%d}"
        found.append(Week(start, riders, plain.verdict, seasonal.verdict, *effects))
    return found


def _columns(rows: pd.DataFrame) -> dict[str, Any]:
    return {one.name: rows[one.name].to_numpy(float) for one in FEATURES}
