"""Retention: captures that are older than the Model allows are deleted.

`python -m truekeep.monitor.sweep`; request in TRUEKEEP_REQUEST, the account in one line as termination message. A
file's age counts from the end of the hour that its path names, in which its first row was received. Only files that
bear the name of a capture are touched. A sweep that was interrupted, or had more to do than one may, is continued by
the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from truekeep.contract.layout import captures, received_until
from truekeep.contract.requests import SweepRequest
from truekeep.contract.results import EXIT_JUDGED, EXIT_OUTSIDE
from truekeep.monitor.errand import Done, run
from truekeep.storage import StoreError
from truekeep.storage.s3 import Bucket, ObjectInfo

FILES_AT_ONCE = 200_000  # of one sweep; the next one goes on
THREADS = 8  # that delete
MOST_WORDS = 2048  # characters that are handed over
GROUP = 1000  # files between two looks at how it goes


@dataclass
class Account:
    """What a sweep did."""

    files: int = 0
    size: int = 0  # bytes
    left: bool = False  # there is more to delete than one sweep may
    odd: int = 0  # Parquet files whose path says no time; they are left alone

    def text(self, request: SweepRequest, before: datetime, versions: bool | None) -> str:
        """For a person."""
        parts = [
            f"{request.namespace}/{request.model}: {self.files} capture files ({self.size:,} bytes) that were received "
            f"before {before:%Y-%m-%d %H:%M} UTC were deleted (retentionDays {request.retention_days})",
            "there are more, the next sweep goes on" if self.left else "",
            f"{self.odd} Parquet files have paths without a time and were left alone" if self.odd else "",
            "the bucket keeps versions: what was deleted stays there as noncurrent versions, for which it needs a "
            "lifecycle rule"
            if versions
            else "",
        ]
        return "; ".join(part for part in parts if part)


def sweep(bucket: Bucket, request: SweepRequest, now: datetime) -> tuple[Account, datetime]:
    """Delete what is too old; what was done, and the moment before which all of it was received. StoreError."""
    before = now - timedelta(days=request.retention_days)
    account = Account()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="delete") as pool:
        too_old = _too_old(bucket, captures(request.namespace, request.model), before, account)
        while group := list(islice(too_old, min(GROUP, FILES_AT_ONCE - account.files))):
            for info, _ in zip(group, pool.map(lambda info: bucket.delete(info.key), group), strict=True):
                account.files += 1
                account.size += info.size
        account.left = account.files >= FILES_AT_ONCE and next(too_old, None) is not None
    return account, before


def _too_old(bucket: Bucket, prefix: str, before: datetime, account: Account) -> Iterator[ObjectInfo]:
    """Capture files that were received before a moment. Within a revision, paths are in the order of time: from the
    first day on that is young enough, the rest of the revision is not listed."""
    last_day = f"date={before:%Y-%m-%d}"
    after: str | None = None
    while True:
        skip_to = None
        for info in bucket.list(prefix, after):
            revision, _, rest = info.key.removeprefix(prefix).partition("/")
            if not revision.startswith("revision="):
                continue
            until = received_until(info.key)
            if until is None:
                account.odd += info.key.endswith(".parquet")
            elif until <= before:
                yield info
            elif rest.partition("/")[0] > last_day:
                skip_to = f"{prefix}{revision}/~"  # behind all that begins with date=
                break
        if skip_to is None:
            return
        after = skip_to


def main(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """One sweep. The exit code is one of `contract.results`."""

    def work(request: SweepRequest) -> Done:
        try:
            bucket = Bucket.open(request.capture)
            account, before = sweep(bucket, request, clock())
            words, code = account.text(request, before, bucket.keeps_versions()), EXIT_JUDGED
        except StoreError as error:
            words, code = f"the sweep could not be finished, the next one goes on: {error}", EXIT_OUTSIDE
        return Done(words, words[:MOST_WORDS], code)

    return run(SweepRequest, "the sweep", work)


if __name__ == "__main__":
    sys.exit(main())
