"""Keeps what was asked and answered: a bounded buffer, emptied into Parquet files by a thread of its own.

An answer costs one append. Where the store stalls, the buffer fills up and then the newest rows are dropped and
counted: it never grows past its bound and never slows an answer. A file that could not be written is tried again with
growing pauses until the server ends.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.api import capture as api
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.hashing import hashed, number_text
from truekeep.contract.layout import DROPPED_COLUMNS, HASHED_COLUMNS, CaptureName, capture_file, captures
from truekeep.features.encode import Matrix, Values, category_text
from truekeep.server.limits import Limits
from truekeep.server.logs import fields, log
from truekeep.server.metrics import Metrics
from truekeep.storage import StoreError
from truekeep.storage.s3 import Bucket

_TEXTS = frozenset((str, type(None)))
_TIME = pa.timestamp("us", tz="UTC")
FIRST_PAUSE = 1.0  # seconds, after the first failure; doubles
LONGEST_PAUSE = 15.0


@dataclass(slots=True)
class Served:
    """One request that was answered."""

    request_id: str
    matrix: Matrix  # (rows, features), as the model saw it
    columns: Mapping[str, Values]  # as the client sent them
    probability: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.int64]
    received: int  # microseconds since 1970
    event_times: Sequence[int | None] | None  # likewise, one a row
    keys: Sequence[str | None] | None
    size: int  # bytes of the request, which stand for the memory that it takes


@dataclass(frozen=True)
class Source:
    """Who captures: what every row says besides its values."""

    namespace: str
    model: str
    revision: int
    pod: str
    cut_off: float
    features: tuple[SignatureFeature, ...]
    key_column: str = ""  # the name under which requests carry the key


class Capture:
    """The buffer and its thread."""

    def __init__(
        self,
        settings: api.Capture,
        source: Source,
        limits: Limits,
        metrics: Metrics,
        open_bucket: Callable[[], Bucket] | None = None,
        *,
        hash_key: bytes | None = None,
    ) -> None:
        """`hash_key`: of the columns that `settings` say are hashed; it must be there where there are any."""
        if settings.hash and hash_key is None:
            raise ValueError("columns are to be hashed, but there is no key")
        self._settings = settings
        self._source = source
        self._limits = limits
        self._metrics = metrics
        self._open = open_bucket or (lambda: Bucket.open(settings.s3, timeout_seconds=5))
        self._kept = tuple(
            (position, feature) for position, feature in enumerate(source.features) if feature.name not in settings.drop
        )
        self._hashes = {name: _Hash(hash_key, name) for name in settings.hash} if hash_key else {}
        self._metadata = {
            name: ",".join(sorted(columns))
            for name, columns in ((HASHED_COLUMNS, settings.hash), (DROPPED_COLUMNS, settings.drop))
            if columns
        }
        self._texts = tuple(feature.name for _, feature in self._kept if feature.type == "Category")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._waiting: deque[Served] = deque()
        self._rows = 0  # waiting, and in the file that is being written
        self._bytes = 0
        self._sequence = 0
        self._full_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def buffered_rows(self) -> int:
        """Rows that are not written yet."""
        return self._rows

    def offer(self, served: Served) -> None:
        """Take the request, which is nobody else's from now on, if its id is sampled and there is room."""
        if not sampled(served.request_id, self._settings.fraction_percent):
            return
        rows = len(served.matrix)
        # Only what is to be stored is kept: not the columns that the Model drops, nor those the matrix has already.
        served.columns = {name: served.columns[name] for name in self._texts}
        with self._lock:
            full = (
                self._rows + rows > self._limits.capture_rows or self._bytes + served.size > self._limits.capture_bytes
            )
            if not full:
                self._waiting.append(served)
                self._rows += rows
                self._bytes += served.size
        if full:
            self._metrics.capture_dropped.inc(rows)
            self._say_full()
        elif self._rows >= self._limits.capture_flush_rows and not self._wake.is_set():
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Write what waits, for at most so long; what is left then is counted as dropped."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._rows:
            self._metrics.capture_dropped.inc(self._rows)
            log.warning("captured rows were lost at the end", extra=fields(rows=self._rows))

    def _say_full(self) -> None:
        if self._full_since is None:
            self._full_since = time.monotonic()
            log.warning(
                "the capture buffer is full, new rows are dropped until the store takes the old ones",
                extra=fields(rows=self._rows, limit=self._limits.capture_rows, uri=self._settings.s3.uri),
            )

    def _run(self) -> None:
        while True:
            self._wake.wait(self._settings.flush_seconds)
            self._wake.clear()
            while batch := self._take():
                if not self._deliver(batch):
                    return
                if self._rows < self._limits.capture_flush_rows and not self._closing:
                    break
            if self._closing and not self._waiting:
                return

    def _take(self) -> list[Served]:
        batch: list[Served] = []
        rows = 0
        with self._lock:
            while self._waiting and rows < self._limits.capture_flush_rows:
                batch.append(self._waiting.popleft())
                rows += len(batch[-1].matrix)
        return batch

    def _deliver(self, batch: list[Served]) -> bool:
        """Write the file, however often it takes. False where the server ended before it was written."""
        rows = sum(len(served.matrix) for served in batch)
        try:
            content, first, last = self._file(batch)
        except Exception:  # our own fault, whatever it is; holding on to these rows would block all others
            log.exception("captured rows can't be written as Parquet and are dropped", extra=fields(rows=rows))
            self._metrics.capture_dropped.inc(rows)
            self._release(batch, rows)
            return True
        received = datetime.fromtimestamp(batch[0].received / 1e6, UTC)
        pause, tried = FIRST_PAUSE, False
        while True:
            name = CaptureName(first // 1000, last // 1000, self._source.pod, self._sequence)
            key = captures(self._source.namespace, self._source.model) + capture_file(
                self._source.revision, received, name
            )
            try:
                written = self._open().put(key, content, only_if_absent=True)
            except Exception as error:  # mostly StoreError; but nothing may end this thread
                self._metrics.capture_failures.inc()
                log.warning(
                    "captured rows could not be written",
                    extra=fields(rows=rows, key=key, reason=str(error)),
                    exc_info=not isinstance(error, StoreError),
                )
                if self._closing:
                    return False
                tried = True
                self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            self._sequence += 1
            # There already: by our own earlier try, whose answer was lost; or by this pod before it was restarted.
            if written or tried:
                self._metrics.captured.inc(rows)
                self._release(batch, rows)
                return True

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closing and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))  # the event also says "many rows", which is no reason to hurry here

    def _release(self, batch: list[Served], rows: int) -> None:
        with self._lock:
            self._rows -= rows
            self._bytes -= sum(served.size for served in batch)
        if self._full_since is not None:
            log.info(
                "the capture buffer has room again", extra=fields(seconds=round(time.monotonic() - self._full_since, 1))
            )
            self._full_since = None

    def _file(self, batch: Sequence[Served]) -> tuple[bytes, int, int]:
        """A Parquet file of the rows, and its first and last event time (microseconds since 1970)."""
        counts = [len(served.matrix) for served in batch]
        rows = sum(counts)
        matrix = np.concatenate([served.matrix for served in batch])
        received = np.repeat(np.array([served.received for served in batch], dtype=np.int64), counts)
        event_time = _optional([served.event_times for served in batch], counts, pa.int64())
        event = np.where(event_time.is_null(), received, event_time.fill_null(0))
        columns: dict[str, Any] = {
            "truekeep.request_id": _repeated([served.request_id for served in batch], counts),
            "truekeep.row": pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts])),
            "truekeep.revision": pa.array(np.full(rows, self._source.revision, dtype=np.int32)),
            "truekeep.received_at": pa.array(received).cast(_TIME),
            "truekeep.event_time": event_time.cast(_TIME),
            "truekeep.key": self._keys(batch, counts),
            "truekeep.probability": pa.array(np.concatenate([served.probability for served in batch])),
            "truekeep.prediction": pa.array(np.concatenate([served.prediction for served in batch])),
            "truekeep.cut_off": pa.array(np.full(rows, self._source.cut_off)),
        }
        for position, feature in self._kept:
            hash_of = self._hashes.get(feature.name)
            if feature.type == "Number" and hash_of:
                columns[feature.name] = pa.array(
                    hash_of.all(map(number_text, matrix[:, position].tolist())), pa.string()
                )
            elif feature.type == "Number":
                columns[feature.name] = pa.array(matrix[:, position], from_pandas=True)  # NaN as null
            else:
                values = list(itertools.chain.from_iterable(served.columns[feature.name] for served in batch))
                if not set(map(type, values)) <= _TEXTS:
                    values = [category_text(value) for value in values]
                if hash_of:
                    values = hash_of.all(values)
                columns[feature.name] = pa.array(values, pa.string())
        sink = pa.BufferOutputStream()
        # Text repeats itself; for numbers a dictionary is mostly built in vain, and is most of the time it takes.
        texts: Any = [name for name, column in columns.items() if column.type == pa.string()]
        table = pa.table(columns, metadata=self._metadata or None)
        pq.write_table(table, sink, compression="zstd", use_dictionary=texts)
        return sink.getvalue().to_pybytes(), int(event.min()), int(event.max())

    def _keys(self, batch: Sequence[Served], counts: Sequence[int]) -> Any:
        parts: list[Sequence[str | None] | None] = [served.keys for served in batch]
        if hash_of := self._hashes.get(self._source.key_column):
            parts = [part and hash_of.all(part) for part in parts]
        return _optional(parts, counts, pa.string())


class _Hash:
    """The keyed hashes of one column."""

    def __init__(self, key: bytes, column: str) -> None:
        self._key, self._column = key, column

    def all(self, values: Iterable[str | None]) -> list[str | None]:
        """Of each value; a null stays one. A value that repeats is hashed once."""
        values = list(values)
        made: dict[str | None, str | None] = {
            value: hashed(self._key, self._column, value) for value in set(values) if value is not None
        }
        return [made.get(value) for value in values]


def _repeated(values: Sequence[str], counts: Sequence[int]) -> Any:
    """Each value as often as its count says, as text."""
    made = pa.array(values, pa.string())
    if len(values) == sum(counts):
        return made
    positions: npt.NDArray[np.int64] = np.repeat(np.arange(len(values), dtype=np.int64), counts)
    return made.take(positions)


def _optional(parts: Sequence[Sequence[Any] | None], counts: Sequence[int], kind: Any) -> Any:
    """The parts behind each other; one that is missing is so many nulls."""
    if not any(part is not None for part in parts):
        return pa.nulls(sum(counts), kind)
    filled = (part if part is not None else [None] * count for part, count in zip(parts, counts, strict=True))
    return pa.array(list(itertools.chain.from_iterable(filled)), kind)


def sampled(request_id: str, percent: int) -> bool:
    """Whether a request belongs to the sample; the same id gives the same answer everywhere."""
    if percent >= 100:
        return True
    digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest) % 100 < percent
