"""Recorded rows in time: cut into windows, and counted on any reference. What `truekeep backtest` replays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.cli.laptop import InputError
from truekeep.monitor.windows import Cut
from truekeep.profiling.build import profile_table
from truekeep.profiling.schema import PREDICTION, ColumnProfile, Profile
from truekeep.profiling.sketch import ColumnSketch
from truekeep.profiling.tables import ParquetTable
from truekeep.profiling.values import Array

MOST_WINDOWS = 2000
THREADS = 2

Times = np.ndarray[Any, np.dtype[np.int64]]


class History:
    """Parquet files with a time for each row. InputError where a file lacks the column, or it holds no times."""

    def __init__(self, tables: Sequence[ParquetTable], time_column: str, prediction: str | None = None) -> None:
        """`prediction`: the column of the probability, which is counted as the prediction."""
        self.tables = tables
        self._prediction = prediction
        self.times = [_times(table, time_column) for table in tables]
        names = [set(table.names) for table in tables]
        self.names = sorted(set.intersection(*names) - {time_column, prediction})
        if prediction is not None and all(prediction in there for there in names):
            self.names.append(PREDICTION)
        self.rows = sum(table.rows for table in tables)

    @property
    def span(self) -> tuple[int, int]:
        """First and last time, in ms. InputError where there is none."""
        known = [times[times >= 0] for times in self.times]
        if not any(len(times) for times in known):
            raise InputError("the history has no row with a time")
        return min(int(t.min()) for t in known if len(t)), max(int(t.max()) for t in known if len(t))

    def windows(self, cut: Cut) -> list[int]:
        """Numbers of the windows that have rows. InputError where they are more than 2,000."""
        found = sorted({int(i) for times in self.times for i in np.unique(_indices(times, cut)) if i != NO_TIME})
        if len(found) > MOST_WINDOWS:
            raise InputError(f"the history has {len(found):,} windows, more than {MOST_WINDOWS:,}; give a part of it")
        return found

    def reference(self, like: Profile, start: int, end: int) -> Profile:
        """The profile of the rows with start <= time < end (ms), of the same columns as another one."""
        from truekeep.contract.artifact import SignatureFeature

        features = [
            SignatureFeature(
                name=column.name,
                type=column.type,
                minimum=column.numeric.declared_minimum,
                maximum=column.numeric.declared_maximum,
            )
            for column in like.columns
        ]
        return profile_table(_Between(self, start, end), features, threads=THREADS)

    def batches(self, table: ParquetTable, name: str) -> Iterator[Array]:
        """A column of one of the tables, by the name that it is counted under."""
        return table.batches(self._prediction if name == PREDICTION and self._prediction else name)

    def count(self, reference: Profile, cut: Cut, after: int) -> dict[int, Profile]:
        """Windows from number `after` on, counted on the reference's cells."""
        indices = [_indices(times, cut) for times in self.times]
        wanted = [index for index in self.windows(cut) if index >= after]
        rows = {index: sum(int((of == index).sum()) for of in indices) for index in wanted}

        def column(then: ColumnProfile) -> dict[int, ColumnProfile]:
            first = ColumnSketch.like(then)
            sketches = {index: first.empty() for index in wanted}
            for table, of in zip(self.tables, indices, strict=True):
                start = 0
                for batch in self.batches(table, then.name):
                    here = of[start : start + len(batch)]
                    start += len(batch)
                    for index in np.unique(here):
                        if int(index) in sketches:
                            part = _chosen(batch, here == index)
                            sketches[int(index)].update(part, len(part))
            return {index: sketch.profile() for index, sketch in sketches.items()}

        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            columns = list(pool.map(column, reference.columns))
        return {index: Profile(rows=rows[index], columns=tuple(of[index] for of in columns)) for index in wanted}


NO_TIME = np.iinfo(np.int64).min


class _Between:
    """The rows of a history in a span of time, as a table."""

    def __init__(self, history: History, start: int, end: int) -> None:
        self._history = history
        self._masks = [(times >= start) & (times < end) for times in history.times]
        self.rows = sum(int(mask.sum()) for mask in self._masks)

    def batches(self, name: str) -> Iterator[Array]:
        for table, mask in zip(self._history.tables, self._masks, strict=True):
            start = 0
            for batch in self._history.batches(table, name):
                here = mask[start : start + len(batch)]
                start += len(batch)
                if here.any():
                    yield _chosen(batch, here)


def _chosen(batch: Array, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    if mask.all():
        return batch
    found: Array = np.asarray(batch)[mask] if isinstance(batch, np.ndarray) else pc.filter(batch, pa.array(mask))
    return found


def _indices(times: Times, cut: Cut) -> Times:
    return np.where(times < 0, NO_TIME, (times - cut.start(0)) // (cut.start(1) - cut.start(0)))


def _times(table: ParquetTable, name: str) -> Times:
    """In ms since 1970, shape (rows,); -1 where there is none."""
    if name not in table.names:
        raise InputError(f"{table.path}: has no column {name!r}; name the rows' time with --time-column")
    kind = table.schema.field(name).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise InputError(f"{table.path}: {name} has type {kind}; the rows' time must be a timestamp or a date")
    parts = [np.empty(0, np.int64)]
    for batch in table.batches(name):
        column: Any = batch
        moment = column.cast(pa.timestamp("ms", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        parts.append(np.asarray(pc.fill_null(moment, -1).to_numpy(zero_copy_only=False), dtype=np.int64))
    return np.concatenate(parts)
