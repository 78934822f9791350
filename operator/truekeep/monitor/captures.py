"""Reading captured predictions: only the columns that are needed, batch after batch, in bounded memory.

A file that can't be read (half written, corrupt, not Parquet, gone) is skipped and counted: one bad file must not keep
a model unwatched. A store that does not answer is another matter and ends the look.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truekeep.contract.layout import DROPPED_COLUMNS, HASHED_COLUMNS, CaptureName
from truekeep.features.times import presence
from truekeep.monitor.windows import HOUR, MONDAY, Cut
from truekeep.profiling.build import WindowSketch
from truekeep.profiling.schema import PREDICTION, Profile
from truekeep.storage import ObjectMissing
from truekeep.storage.s3 import Bucket

EVENT_TIME = "truekeep.event_time"
RECEIVED_AT = "truekeep.received_at"
PROBABILITY = "truekeep.probability"
KEY = "truekeep.key"
BATCH_ROWS = 65_536
WHOLE_BYTES = 8 << 20  # up to this size an object is fetched whole, beyond it in ranges
BUFFER_BYTES = 1 << 20  # of a column, while a large object is read in ranges
AHEAD = 4  # objects that are fetched ahead
KEPT_REASONS = 20


@dataclass(frozen=True)
class CaptureFile:
    """An object of the capture store."""

    key: str
    size: int
    name: CaptureName


@dataclass
class Skipped:
    """Files that could not be read."""

    keys: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)  # the first 20, "key: why"

    def add(self, key: str, error: Exception | str) -> None:
        """Note a file, once."""
        if key not in self.keys:
            self.keys.add(key)
            if len(self.reasons) < KEPT_REASONS:
                self.reasons.append(f"{key[-160:]}: {' '.join(str(error).split())[:200]}")


class UnreadableError(Exception):
    """A file is no capture that can be read."""


def windows_with_rows(bucket: Bucket, file: CaptureFile, cut: Cut, skipped: Skipped) -> set[int]:
    """Windows that a file has rows in. Its name says so where it touches two at most; else its times are read."""
    touched = cut.touched(file.name)
    if len(touched) <= 2:
        return set(touched)
    found: set[int] = set()
    try:
        for batch in _batches(_source(bucket, file), [EVENT_TIME, RECEIVED_AT]):
            times = event_times(batch)
            indices = (times[~np.isnan(times)] - MONDAY) // (cut.hours * HOUR)
            found |= {int(index) for index in np.unique(indices)}
    except (UnreadableError, ObjectMissing) as error:
        skipped.add(file.key, error)
    return found


def count(
    bucket: Bucket,
    files: Sequence[CaptureFile],
    reference: Profile,
    *,
    start: int,
    end: int,
    skipped: Skipped,
    without: Collection[str] = (),
    keys: Callable[[Any], None] | None = None,
    together: bool = False,
) -> WindowSketch:
    """Rows of these files with start <= event time < end (ms), counted on the reference's cells. Columns in `without`,
    and those that a file has only as hashes, count as absent: nothing in the reference compares with a hash.
    `keys`: is told the keys of each batch. `together`: rows are measured all features at once, too."""
    whole = WindowSketch(reference, together=together)
    features = [column.name for column in reference.columns if column.name not in {PREDICTION, *without}]
    categories = [name for name in features if (column := reference.column(name)) and column.type == "Category"]
    wanted = [EVENT_TIME, RECEIVED_AT, PROBABILITY, *features, *([KEY] if keys else [])]
    for file, source in _ahead(bucket, files, skipped):
        part = whole.empty()  # a file that breaks half-way must leave nothing behind
        try:
            for batch in _batches(source, wanted, categories):
                rows, columns = _rows_between(batch, [*features, *([KEY] if keys else [])], start, end)
                if keys and KEY in columns:
                    keys(columns.pop(KEY))
                for name in [name for name, column in columns.items() if pa.types.is_timestamp(column.type)]:
                    columns[name] = presence(columns[name])
                if rows:
                    part.update(columns, rows)
        except (UnreadableError, ObjectMissing) as error:
            skipped.add(file.key, error)
            continue
        whole.merge(part)
    return whole


def between(
    bucket: Bucket,
    files: Sequence[CaptureFile],
    names: Sequence[str],
    *,
    start: int,
    end: int,
    skipped: Skipped,
    hashed: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of these files with start <= event time < end (ms), by column, batch after batch in a fixed order. Columns
    that a file lacks are left out, and those that it has only as hashes, but for `hashed`. A file that breaks half-way
    ends there and is noted."""
    for file, source in _ahead(bucket, files, skipped):
        try:
            for batch in _batches(source, [EVENT_TIME, RECEIVED_AT, *names], hashed=hashed):
                times = event_times(batch)
                inside = (times >= start) & (times < end)
                if inside.any():
                    mask = pa.array(inside)
                    yield {name: pc.filter(column, mask) for name, column in batch.items()}
        except (UnreadableError, ObjectMissing) as error:
            skipped.add(file.key, error)


def event_times(batch: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Event times of a batch in ms, shape (rows,); where a row has none, when it was received; NaN where neither."""
    found = None
    for name in (EVENT_TIME, RECEIVED_AT):
        column = batch.get(name)
        if column is None:
            continue
        if not pa.types.is_timestamp(column.type):
            raise UnreadableError(f"{name} has type {column.type}, not a timestamp")
        found = column if found is None else pc.coalesce(found, column.cast(found.type))
    if found is None:
        raise UnreadableError(f"has neither {EVENT_TIME} nor {RECEIVED_AT}")
    micro = found.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    return np.asarray(micro.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)) / 1000.0


def hashed_columns(metadata: pq.FileMetaData) -> set[str]:
    """Columns of a capture file that hold keyed hashes of values."""
    return _names(metadata, HASHED_COLUMNS)


def incomplete(metadata: pq.FileMetaData) -> bool:
    """Whether a capture file lacks features, or has only hashes of them, so that its requests can't be sent again."""
    there = set(metadata.schema.to_arrow_schema().names)
    return bool(_names(metadata, DROPPED_COLUMNS) or hashed_columns(metadata) & there)


def _names(metadata: pq.FileMetaData, entry: str) -> set[str]:
    text = (metadata.metadata or {}).get(entry.encode(), b"")
    return set(text.decode("utf-8", "replace").split(",")) - {""}


def _rows_between(
    batch: Mapping[str, Any], features: Iterable[str], start: int, end: int
) -> tuple[int, dict[str, Any]]:
    times = event_times(batch)
    inside = (times >= start) & (times < end)
    rows = int(inside.sum())
    columns: dict[str, Any] = {name: batch[name] for name in features if name in batch}
    if PROBABILITY in batch:
        columns[PREDICTION] = batch[PROBABILITY]
    if 0 < rows < len(times):
        mask = pa.array(inside)
        columns = {name: pc.filter(column, mask) for name, column in columns.items()}
    return rows, columns


def _batches(
    source: io.BytesIO | io.BufferedReader,
    names: Sequence[str],
    categories: Sequence[str] = (),
    hashed: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """Batches of at most 65,536 rows, by column; columns that the file lacks are left out. UnreadableError."""
    try:
        metadata = pq.read_metadata(source)
        there = metadata.schema.to_arrow_schema().names
        if len(set(there)) != len(there):
            raise UnreadableError("a column occurs twice")
        comparable = set(there) - (hashed_columns(metadata) - set(hashed))
        wanted = [name for name in names if name in comparable]
        # Text stays encoded by a dictionary, so that a long value that repeats is held once.
        encoded = [name for name in categories if name in comparable]
        source.seek(0)
        buffer = 0 if isinstance(source, io.BytesIO) else BUFFER_BYTES
        with pq.ParquetFile(
            source, metadata=metadata, read_dictionary=encoded, buffer_size=buffer, pre_buffer=False
        ) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False):
                yield {name: batch.column(name) for name in wanted}
    except (pa.ArrowException, ValueError, KeyError, EOFError, MemoryError) as error:
        raise UnreadableError(f"can't be read as Parquet: {error}") from error
    except OSError as error:  # Arrow's own, for what is no Parquet; the store's errors are no OSError
        raise UnreadableError(f"can't be read as Parquet: {error}") from error


def _ahead(
    bucket: Bucket, files: Sequence[CaptureFile], skipped: Skipped
) -> Iterator[tuple[CaptureFile, io.BytesIO | io.BufferedReader]]:
    """The files in order, some fetched while others are counted."""
    with ThreadPoolExecutor(max_workers=AHEAD, thread_name_prefix="fetch") as pool:
        waiting: deque[tuple[CaptureFile, Future[io.BytesIO | io.BufferedReader]]] = deque()
        remaining = iter(files)
        try:
            while True:
                while len(waiting) < AHEAD and (file := next(remaining, None)) is not None:
                    waiting.append((file, pool.submit(_source, bucket, file)))
                if not waiting:
                    return
                file, future = waiting.popleft()
                try:
                    yield file, future.result()
                except ObjectMissing as error:
                    skipped.add(file.key, error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _source(bucket: Bucket, file: CaptureFile) -> io.BytesIO | io.BufferedReader:
    if file.size <= WHOLE_BYTES:
        return io.BytesIO(bucket.get(file.key))
    return io.BufferedReader(_Ranges(bucket, file), buffer_size=BUFFER_BYTES)


class _Ranges(io.RawIOBase):
    """A large object, read in ranges as it is needed."""

    def __init__(self, bucket: Bucket, file: CaptureFile) -> None:
        self._bucket = bucket
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._file.size - self._at)
        if length <= 0:
            return 0
        data = self._bucket.fetch(self._file.key, span=(self._at, length)).data
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
