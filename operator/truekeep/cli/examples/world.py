"""What an example knows of the whole world, and how much of it the model's lake has seen so far.

A prepared folder is laid out as buckets: `lake/…` is the history that is there when the example begins, `replay/…` is
the future, which a replay sends through the model and appends to the lake bit by bit, as it happens.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LAKE = "lake"
FUTURE = "replay"


@dataclass(frozen=True)
class AsOf:
    """A second source that is joined as it was known: the newest row at or before the event, not older than so much."""

    table: str
    time_column: str
    by: str
    max_age: timedelta


@dataclass(frozen=True)
class Example:
    """Where an example's tables lie and what their columns mean. `events` has a row per event, without its label;
    `labels` has the label of each, on the day on which it became known."""

    name: str
    events: str
    labels: str
    time_column: str
    known_column: str  # in `labels`: when the label became known
    key: str
    prefix: str = ""  # of all tables in the lake
    join: AsOf | None = None

    def times(self) -> dict[str, str]:
        """Every table, and the column by which its rows come into being."""
        times = {self.events: self.time_column, self.labels: self.known_column}
        return times | ({self.join.table: self.join.time_column} if self.join else {})


FLIGHT_DELAY = Example(
    name="flight-delay",
    events="flights",
    labels="arrivals",
    time_column="scheduled_at",
    known_column="landed_at",
    key="flight_id",
    join=AsOf("weather", "observed_at", "origin", timedelta(hours=3)),
)
FRAUD = Example(
    name="fraud",
    events="payments",
    labels="chargebacks",
    time_column="paid_at",
    known_column="settled_at",
    key="payment_id",
    prefix="fraud/",
)
EXAMPLES = {example.name: example for example in (FLIGHT_DELAY, FRAUD)}


def day_key(day: datetime) -> str:
    """Name of the object with a day's rows. Example: 2013-03-01.parquet."""
    return f"{day:%Y-%m-%d}.parquet"


def month_key(day: datetime) -> str:
    """Name of the object with a month's rows. Example: 2013-03.parquet."""
    return f"{day:%Y-%m}.parquet"


def between(table: pa.Table, column: str, start: datetime, end: datetime) -> pa.Table:
    """The rows whose time lies in [start, end), in the order of that time."""
    kind = table.schema.field(column).type
    at_least = pc.greater_equal(table[column], pa.scalar(start, kind))
    before = pc.less(table[column], pa.scalar(end, kind))
    return table.filter(pc.and_(at_least, before)).sort_by(column)


def to_bytes(table: pa.Table) -> bytes:
    """The table as Parquet; the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def days(start: datetime, end: datetime) -> Iterator[datetime]:
    """The UTC days from start until before end."""
    day = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while day < end:
        yield day
        day += timedelta(days=1)


def months(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The calendar months that [start, end) touches, as [first, next)."""
    first = start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while first < end:
        following = (first + timedelta(days=32)).replace(day=1)
        yield first, following
        first = following


def write(example: Example, tables: Mapping[str, pa.Table], folder: Path, begins: datetime) -> dict[str, int]:
    """Cut the tables into what is known when the example begins (by week, into the lake) and the rest (by month).

    Answers the rows of each folder that was written. `begins` must be a UTC midnight."""
    written: dict[str, int] = {}
    for name, column in example.times().items():
        table = tables[name]
        first, last = pc.min(table[column]).as_py(), pc.max(table[column]).as_py() + timedelta(microseconds=1)
        week = timedelta(days=7)
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        pieces = [
            (f"{LAKE}/{example.prefix}{name}", day_key(start), start, min(start + week, begins))
            for start in (midnight + week * number for number in range((begins - midnight) // week + 1))
            if start < begins
        ]
        pieces += [
            (f"{FUTURE}/{example.name}/{name}", month_key(start), max(start, begins), end)
            for start, end in months(begins, last)
        ]
        for place, key, start, end in pieces:
            rows = between(table, column, start, end)
            target = folder / place / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(to_bytes(rows))
            written[place] = written.get(place, 0) + rows.num_rows
    return written
