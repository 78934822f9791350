"""Takes captured files from the spool to the object store, the oldest first, however often that takes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from truekeep.server.background import step_back
from truekeep.server.logs import fields, log
from truekeep.server.metrics import Metrics
from truekeep.server.spool import Spool, Spooled
from truekeep.storage import StoreError
from truekeep.storage.s3 import Bucket

FIRST_PAUSE = 1.0  # seconds, after the first failure; doubles
LONGEST_PAUSE = 15.0


class Uploader:
    """A thread. What it finds at its start, an earlier process left."""

    def __init__(self, spool: Spool, open_bucket: Callable[[], Bucket], metrics: Metrics) -> None:
        self._spool = spool
        self._open = open_bucket
        self._metrics = metrics
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)

    def start(self) -> None:
        """Begin."""
        if rows := self._spool.rows:
            log.info("captured rows were left by an earlier process and are uploaded now", extra=fields(rows=rows))
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Upload what is there, for at most so long, and no more once the store refuses."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        step_back()
        pause = FIRST_PAUSE
        while True:
            spooled = self._spool.oldest()
            if spooled is None:
                if self._closing.is_set():
                    return
                self._wake.wait()
                self._wake.clear()
            elif self._upload(spooled):
                pause = FIRST_PAUSE
            elif self._closing.is_set():
                return
            else:
                self._closing.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _upload(self, spooled: Spooled) -> bool:
        """Whether the file need not wait any more."""
        try:
            content = spooled.path.read_bytes()
        except OSError as error:
            self._metrics.capture_dropped.inc(spooled.rows)
            log.warning(
                "captured rows were lost, their file can't be read",
                extra=fields(rows=spooled.rows, key=spooled.key, reason=str(error)),
            )
            self._spool.remove(spooled)
            return True
        if not put(self._open, self._metrics, spooled.key, content, spooled.rows):
            return False
        self._spool.remove(spooled)
        return True


def put(open_bucket: Callable[[], Bucket], metrics: Metrics, key: str, content: bytes, rows: int) -> bool:
    """Whether a file is in the store now. The name is the file's own, so that a repeated try overwrites itself."""
    try:
        open_bucket().put(key, content)
    except Exception as error:  # mostly StoreError; but nothing may end a thread that captures
        metrics.capture_failures.inc()
        log.warning(
            "captured rows could not be written, they wait",
            extra=fields(rows=rows, key=key, reason=str(error)),
            exc_info=not isinstance(error, StoreError),
        )
        return False
    metrics.captured.inc(rows)
    return True
