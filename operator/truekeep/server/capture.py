"""Keeps what was asked and answered: a bounded buffer, emptied into Parquet files by a thread of its own.

An answer costs one append. A file goes to the spool first, a bounded folder that outlives the container, and from
there to the store by another thread: so a store that stalls holds nothing in memory. Where the spool is full, or there
is none, the buffer fills up, and then the newest rows are dropped and counted: it never grows past its bound and never
slows an answer.

At least once: a file is written under a name of its own, again after every failure and every restart of the container,
and overwrites itself. Lost are, on SIGKILL, the rows that are not in a file yet (at most `flushSeconds` old); with the
pod, what its spool still holds; and what was dropped, which is counted.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from truekeep.api import capture as api
from truekeep.contract.artifact import SignatureFeature
from truekeep.contract.hashing import hashed
from truekeep.contract.layout import (
    CAPTURED_ARTIFACT,
    CAPTURED_FORMAT,
    CAPTURED_PERCENT,
    CAPTURED_RUN,
    DROPPED_COLUMNS,
    HASHED_COLUMNS,
    CaptureName,
    capture_file,
    captures,
)
from truekeep.contract.sampling import sampled
from truekeep.features.encode import Matrix
from truekeep.server.background import step_back
from truekeep.server.capture_rows import Files, Rows, Unknown
from truekeep.server.limits import Limits
from truekeep.server.logs import fields, log
from truekeep.server.metrics import Metrics
from truekeep.server.spool import Spool
from truekeep.server.upload import FIRST_PAUSE, LONGEST_PAUSE, Uploader, put
from truekeep.storage.s3 import Bucket


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
    artifact: str = ""  # its digest
    run: str = ""  # the TrainingRun that made it
    format: str = ""  # what answers: onnx, skops or image


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
        spool: Spool | None = None,
    ) -> None:
        """`hash_key`: of the columns that `settings` say are hashed; it must be there where there are any. `spool`:
        where files wait for the store; None: in memory, one after the other."""
        if settings.hash and hash_key is None:
            raise ValueError("columns are to be hashed, but there is no key")
        self._settings = settings
        self._source = source
        self._limits = limits
        self._metrics = metrics
        self._open = open_bucket or (lambda: Bucket.open(settings.s3, timeout_seconds=5))
        self._kept = frozenset(
            position for position, feature in enumerate(source.features) if feature.name not in settings.drop
        )
        self._files = Files(
            source.features,
            source.revision,
            source.cut_off,
            drop=settings.drop,
            key_column=source.key_column,
            hashes={name: _Hash(hash_key, name) for name in settings.hash} if hash_key else {},
            metadata=_metadata(settings, source),
        )
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._waiting: deque[Rows] = deque()  # enough for a file each
        self._current = Rows()
        self._rows = 0  # waiting, and in the file that is being written
        self._bytes = 0
        # No name is used twice, by this process or the next one in this pod: so a file may be written again and again.
        self._writer = f"{source.pod}-{os.urandom(4).hex()}"
        self._sequence = itertools.count()
        self._spool = spool
        self._uploader = Uploader(spool, self._open, metrics) if spool is not None else None
        if spool is not None:
            metrics.watch_spool(lambda: spool.rows, lambda: spool.size)
        self._full_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()
        if self._uploader is not None:
            self._uploader.start()

    def buffered_rows(self) -> int:
        """Rows in memory, which are neither in the store nor in the spool yet."""
        return self._rows

    def offer(
        self,
        request_id: str,
        matrix: Matrix,
        probability: Matrix,
        received: int,
        *,
        event_times: Sequence[int | None] | None,
        keys: Sequence[str | None] | None,
        unknown: Unknown,
        size: int,
    ) -> None:
        """Take a request, whose parts are nobody else's from now on, if its id is sampled and there is room. See
        `Rows.add`; `size`: bytes of the request, which stand for the memory that it takes."""
        if self._settings.fraction_percent < 100 and not sampled(request_id, self._settings.fraction_percent):
            return
        rows, limits = len(probability), self._limits
        if unknown:
            unknown = {position: column for position, column in unknown.items() if position in self._kept}
        flush = False
        with self._lock:
            full = self._rows + rows > limits.capture_rows or self._bytes + size > limits.capture_bytes
            if not full:
                current = self._current
                current.add(
                    request_id, matrix, probability, received,
                    event_times=event_times, keys=keys, unknown=unknown, size=size,
                )  # fmt: skip
                self._rows += rows
                self._bytes += size
                if current.rows >= limits.capture_flush_rows:
                    self._waiting.append(current)
                    self._current = Rows()
                    flush = True
        if flush:
            self._wake.set()
        elif full:
            self._metrics.capture_dropped.inc(rows)
            self._say_full()

    def close(self, seconds: float) -> None:
        """Write what waits, for at most so long. What is left in memory then is counted as dropped; what is left in the
        spool is there for the next process."""
        end = time.monotonic() + seconds
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._uploader is not None and self._spool is not None:
            self._uploader.close(max(0.0, end - time.monotonic()))
            if left := self._spool.rows:
                log.warning("captured rows are left in the spool, and lost if the pod ends", extra=fields(rows=left))
        if self._rows:
            self._metrics.capture_dropped.inc(self._rows)
            log.warning("captured rows were lost at the end", extra=fields(rows=self._rows))

    def _say_full(self) -> None:
        if self._full_since is None:
            self._full_since = time.monotonic()
            log.warning(
                "the capture buffer is full, new rows are dropped until the store or the spool takes the old ones",
                extra=fields(rows=self._rows, limit=self._limits.capture_rows, uri=self._settings.s3.uri),
            )

    def _run(self) -> None:
        step_back()
        while True:
            self._wake.wait(self._settings.flush_seconds)
            self._wake.clear()
            while batch := self._take():
                if not self._deliver(batch):
                    return
                if self._rows < self._limits.capture_flush_rows and not self._closing:
                    break
            if self._closing and not self._rows:
                return

    def _take(self) -> Rows | None:
        """What makes the next file; None where nothing waits."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if not self._current.rows:
                return None
            batch, self._current = self._current, Rows()
            return batch

    def _deliver(self, batch: Rows) -> bool:
        """Write the file, however often it takes. False where the server ended before that."""
        rows = batch.rows
        try:
            content, first, last = self._files.file(batch)
        except Exception:  # our own fault, whatever it is; holding on to these rows would block all others
            log.exception("captured rows can't be written as Parquet and are dropped", extra=fields(rows=rows))
            self._metrics.capture_dropped.inc(rows)
            self._release(batch)
            return True
        received = datetime.fromtimestamp(batch.received[0] / 1e6, UTC)
        name = CaptureName(first // 1000, last // 1000, self._writer, next(self._sequence))
        key = captures(self._source.namespace, self._source.model)
        key += capture_file(self._source.revision, received, name)
        pause = FIRST_PAUSE
        # A spool that is full, or can't be written, is no reason to lose anything while there is memory.
        while not (self._spooled(key, content, rows) or put(self._open, self._metrics, key, content, rows)):
            if self._closing:
                return False
            self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self._release(batch)
        return True

    def _spooled(self, key: str, content: bytes, rows: int) -> bool:
        if self._spool is None or self._uploader is None or not self._spool.add(key, content, rows):
            return False
        self._uploader.wake()
        return True

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closing and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))  # the event also says "many rows", which is no reason to hurry here

    def _release(self, batch: Rows) -> None:
        with self._lock:
            self._rows -= batch.rows
            self._bytes -= batch.size
        if self._full_since is not None:
            log.info(
                "the capture buffer has room again", extra=fields(seconds=round(time.monotonic() - self._full_since, 1))
            )
            self._full_since = None


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


def _metadata(settings: api.Capture, source: Source) -> dict[str, str]:
    """What each file says of all its rows."""
    said = {
        CAPTURED_ARTIFACT: source.artifact,
        CAPTURED_RUN: source.run,
        CAPTURED_FORMAT: source.format,
        CAPTURED_PERCENT: str(settings.fraction_percent),
        HASHED_COLUMNS: ",".join(sorted(settings.hash)),
        DROPPED_COLUMNS: ",".join(sorted(settings.drop)),
    }
    return {name: value for name, value in said.items() if value}
