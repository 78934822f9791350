"""A bounded sample of what the live revision was asked, from its capture files.

The newest files are listed, of at most 40 of them, spread evenly, as much is read as fits into 64 MiB, and of their
rows at most 20,000 are kept, spread evenly. A file that can't be read is left out and counted: that is the monitor's
affair.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truekeep.contract.layout import HASHED_COLUMNS, parse_capture_file
from truekeep.sources import columns
from truekeep.sources.columns import NO_TIME, Values, Want
from truekeep.storage import ObjectMissing, ObjectTooLarge
from truekeep.storage.artifacts import Store
from truekeep.storage.s3 import ObjectInfo

MOST_FILES = 40
MOST_BYTES = 64 << 20
MOST_ROWS = 20_000
MOST_LISTED = 5_000
LOOK_BACK_HOURS = (1, 24, 24 * 7, 24 * 31)  # by when they were received; then all
EVENT_TIME, RECEIVED_AT, KEY = "truekeep.event_time", "truekeep.received_at", "truekeep.key"


@dataclass(frozen=True)
class Served:
    """Requests as they were captured. Arrays have shape (rows,); `times` in microseconds since 1970, of the event or,
    where a request had none, of its receipt. Columns that no file has are left out."""

    times: npt.NDArray[np.int64]
    keys: Any  # pa.string(), null where a request had none
    columns: dict[Want, Values]
    skipped: int = 0  # files that could not be read

    def __len__(self) -> int:
        return len(self.times)

    def select(self, which: npt.NDArray[Any]) -> Served:
        """The rows of a mask or at positions."""
        chosen = {want: columns.select(values, which) for want, values in self.columns.items()}
        return Served(self.times[which], columns.select(self.keys, which), chosen, self.skipped)


def sample(store: Store, prefix: str, wants: Sequence[Want], now: datetime) -> Served:
    """The newest captures below a prefix. StoreError where the store is at fault."""
    files = newest(store, prefix, now)
    parts: list[Served] = []
    room, skipped = MOST_BYTES, 0
    for file in files:
        if file.size > room:
            continue
        try:
            parts.append(_part(store.fetch(file.key, limit=room).data, wants))
        except (ObjectMissing, ObjectTooLarge, pa.ArrowException, OSError, ValueError, KeyError):
            skipped += 1
            continue
        room -= file.size
    found = _joined(parts, wants, skipped)
    return found if len(found) <= MOST_ROWS else found.select(spread(len(found), MOST_ROWS))


def newest(store: Store, prefix: str, now: datetime) -> list[ObjectInfo]:
    """At most 40 capture files of the shortest while that has as many, spread evenly over it."""
    found: list[ObjectInfo] = []
    for hours in (*LOOK_BACK_HOURS, None):
        after = None
        if hours is not None:
            after = prefix + (now - timedelta(hours=hours)).strftime("date=%Y-%m-%d/hour=%H")
        listed = islice(store.list(prefix, after), MOST_LISTED)
        found = [info for info in listed if parse_capture_file(info.key) is not None]
        if len(found) >= MOST_FILES:
            break
    return [found[place] for place in spread(len(found), MOST_FILES)] if found else []


def spread(rows: int, most: int) -> npt.NDArray[np.int64]:
    """So many positions at most, evenly over all; the last one is always among them."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))


def _part(data: bytes, wants: Sequence[Want]) -> Served:
    file = pq.ParquetFile(io.BytesIO(data))
    there = set(file.schema_arrow.names)
    hashed = (file.metadata.metadata or {}).get(HASHED_COLUMNS.encode(), b"").decode("utf-8", "replace")
    there -= set(hashed.split(","))
    named = [name for name in (EVENT_TIME, RECEIVED_AT, KEY, *(want.name for want in wants)) if name in there]
    table = file.read(columns=list(dict.fromkeys(named)), use_threads=False).combine_chunks()
    raw = {name: pa.concat_arrays(table[name].chunks) if table.num_rows else None for name in table.column_names}
    if not table.num_rows:
        return Served(np.empty(0, np.int64), pa.nulls(0, pa.string()), {})
    times = np.full(table.num_rows, NO_TIME)
    for name in (RECEIVED_AT, EVENT_TIME):  # the second wins where it is there
        if raw.get(name) is not None:
            known: Any = columns.convert(name, raw[name], "Time", False)[0]
            times = np.where(known == NO_TIME, times, known)
    keys: Any = pa.nulls(table.num_rows, pa.string())
    if raw.get(KEY) is not None:
        keys = columns.convert(KEY, raw[KEY], "Category", False)[0]
    # A column that can't be what it should be is one of nulls: that, too, is skew.
    values = {
        want: columns.convert(want.name, raw[want.name], want.kind, False)[0] for want in wants if want.name in raw
    }
    return Served(times, keys, values).select(times != NO_TIME)


def _joined(parts: Sequence[Served], wants: Sequence[Want], skipped: int) -> Served:
    if not parts:
        return Served(np.empty(0, np.int64), pa.nulls(0, pa.string()), {}, skipped)

    def whole(want: Want) -> Values:
        pieces = [part.columns.get(want, columns.empty(want.kind, len(part))) for part in parts]
        return columns.concatenate(pieces, want.kind)

    there = [want for want in wants if any(want in part.columns for part in parts)]
    times = np.concatenate([part.times for part in parts])
    keys = pa.concat_arrays([pc.cast(part.keys, pa.string()) for part in parts])
    return Served(times, keys, {want: whole(want) for want in there}, skipped)
