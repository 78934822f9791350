"""What a replay reads (the future, by month) and writes (the lake, by day, under names that repeat)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truekeep.cli.examples.world import Example, between, day_key, month_key, to_bytes
from truekeep.cli.replay.ledger import Ledger
from truekeep.storage.errors import ObjectMissing
from truekeep.storage.s3 import Bucket

LEDGER = "ledger.json"


class Lake:
    """The two buckets of one example."""

    def __init__(self, example: Example, future: Bucket, lake: Bucket) -> None:
        self._example = example
        self._future = future
        self._lake = lake
        self._month: dict[str, tuple[str, pa.Table | None]] = {}  # by table: the month that is at hand
        self._known: pa.Table | None = None  # rows of the joined source, those that may still be joined

    @property
    def ledger_key(self) -> str:
        """Where the account lies, in the bucket of the future."""
        return f"{self._example.name}/{LEDGER}"

    def ledger(self) -> Ledger:
        """The account of the days that are done; a new one where there is none."""
        try:
            return Ledger.load(json.loads(self._future.get(self.ledger_key)))
        except ObjectMissing:
            return Ledger()

    def store(self, ledger: Ledger) -> None:
        """Write the account."""
        self._future.put(self.ledger_key, json.dumps(ledger.dump()).encode())

    def day(self, name: str, day: datetime) -> pa.Table | None:
        """The rows of one table that come into being on one UTC day; None where the future has no such month."""
        key = f"{self._example.name}/{name}/{month_key(day)}"
        at_hand, month = self._month.get(name, ("", None))
        if at_hand != key:
            try:
                month = pq.read_table(io.BytesIO(self._future.get(key)))
            except ObjectMissing:
                month = None
            self._month[name] = (key, month)
        column = self._example.times()[name]
        return None if month is None else between(month, column, day, day + timedelta(days=1))

    def events(self, day: datetime) -> pa.Table | None:
        """The day's events, with the joined source as it was known at each; None where there are none."""
        rows = self.day(self._example.events, day)
        join = self._example.join
        if rows is None or rows.num_rows == 0 or join is None:
            return rows if rows is not None and rows.num_rows else None
        if self._known is None:
            self._known = self._before(join.table, join.time_column, day - join.max_age, day)
        pieces = [self._known, self.day(join.table, day)]
        known = pa.concat_tables([piece for piece in pieces if piece is not None]).sort_by(join.time_column)
        self._known = between(known, join.time_column, day + timedelta(days=1) - join.max_age, day + timedelta(days=1))
        microseconds = join.max_age // timedelta(microseconds=1)
        return rows.join_asof(
            known,
            on=self._example.time_column,
            by=join.by,
            tolerance=-microseconds,
            right_on=join.time_column,
            right_by=join.by,
        )

    def append(self, day: datetime) -> tuple[int, int]:
        """Let the lake know what came into being on this day; answers the numbers of events and labels.

        The events go last, since they are what a reader's newest event, and so its clock, goes by."""
        counts: dict[str, int] = {}
        for name in reversed(self._example.times()):
            rows = self.day(name, day)
            counts[name] = 0 if rows is None else rows.num_rows
            if rows is not None and rows.num_rows:
                self._lake.put(f"{self._example.prefix}{name}/{day_key(day)}", to_bytes(rows))
        return counts[self._example.events], counts[self._example.labels]

    def _before(self, name: str, column: str, start: datetime, end: datetime) -> pa.Table | None:
        """What the lake knows already of a table in [start, end)."""
        prefix = f"{self._example.prefix}{name}/"
        keys = [each.key for each in self._lake.list(prefix) if each.key < prefix + day_key(end)]
        if not keys:
            return None
        return between(pq.read_table(io.BytesIO(self._lake.get(keys[-1]))), column, start, end)


def hours(rows: pa.Table, column: str) -> Iterator[tuple[datetime, pa.Table]]:
    """The rows of each hour, in the order of time."""
    hour = pc.floor_temporal(rows[column], unit="hour")
    found = {value for value in hour.to_pylist() if isinstance(value, datetime)}
    for value in sorted(found):
        yield value, rows.filter(pc.equal(hour, pa.scalar(value, hour.type)))
