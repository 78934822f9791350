"""All captured rows of a Model, file after file, the oldest hour first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from truekeep.cli.erasure import opened
from truekeep.cli.stores import folders
from truekeep.cli.why.find import NEAR, OURS, THREADS, Captures, Span, day_of, receipts, said
from truekeep.contract import layout
from truekeep.storage import ObjectMissing
from truekeep.storage.s3 import ObjectInfo

RECEIVED = f"{OURS}received_at"
FACTS = (
    "received_at", "request_id", "row", "key", "event_time", "revision", "prediction", "probability", "cut_off",
)  # fmt: skip


@dataclass
class Account:
    """What was read. `percents`: shares of the requests that are captured; `erasures`: receipts; `hashed`: columns."""

    rows: int = 0
    files: int = 0
    first: datetime | None = None
    last: datetime | None = None
    percents: set[int] = field(default_factory=set)
    hashed: set[str] = field(default_factory=set)
    erasures: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    table: pa.Table
    metadata: dict[str, str]


def rows(
    captures: Captures, namespace: str, model: str, revision: int | None, span: Span, features: bool, account: Account
) -> Iterator[dict[str, Any]]:
    """The rows, of a revision or of all, that were received in the span. StoreError where the store does not answer."""
    account.erasures = len(receipts(captures, namespace, model))
    files = _files(captures, namespace, model, revision, span)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
        while group := list(islice(files, THREADS)):
            for info, found in zip(
                group, pool.map(lambda info: _read(captures, info, span, features), group), strict=True
            ):
                account.files += 1
                if isinstance(found, Exception):
                    account.unreadable.append(f"{info.key}: {' '.join(str(found).split())[:200]}")
                elif found is not None:
                    yield from _told(found, account)


def _files(captures: Captures, namespace: str, model: str, revision: int | None, span: Span) -> Iterator[ObjectInfo]:
    """Capture files that may hold such rows, the oldest hour first."""
    base = layout.captures(namespace, model)
    wanted = f"revision={revision}" if revision is not None else None
    days = [
        (name, f"{base}{each}/{name}/")
        for each in folders(captures, base)
        if each.startswith("revision=") and wanted in (None, each)
        for name in folders(captures, f"{base}{each}/")
        if (start := day_of(name)) is not None and span.meets(start, start + timedelta(days=1) + NEAR)
    ]
    for day in sorted({day for day, _ in days}):
        found = []
        for prefix in (prefix for of, prefix in days if of == day):
            for info in captures.list(prefix):
                until = layout.received_until(info.key)
                if until is None:
                    continue
                begin = until - (timedelta(hours=1) if "/" in info.key.removeprefix(prefix) else timedelta(days=1))
                if span.meets(begin, until + NEAR):  # a file's rows may be received in the hour after its first one
                    found.append((until, info))
        yield from (info for _, info in sorted(found, key=lambda each: (each[0], each[1].key)))


def _read(captures: Captures, info: ObjectInfo, span: Span, features: bool) -> _File | Exception | None:
    """The rows of a file; None where it is gone. An error that is about this file alone is the answer."""
    try:
        with opened(captures, info) as file:
            names = [name for name in file.schema_arrow.names if features or name.removeprefix(OURS) in FACTS]
            table = file.read(columns=names, use_threads=False)
            metadata = said(file)
    except ObjectMissing:  # retention was quicker
        return None
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        return error
    received = table.column(RECEIVED)
    mask: Any = pc.is_valid(received)
    if span.start is not None:
        mask = pc.and_(mask, pc.greater_equal(received, pa.scalar(span.start, received.type)))
    if span.end is not None:
        mask = pc.and_(mask, pc.less(received, pa.scalar(span.end, received.type)))
    return _File(table.filter(mask), metadata)


def _told(found: _File, account: Account) -> Iterator[dict[str, Any]]:
    """Its rows as plain values, the facts first, and what they add to the account."""
    if percent := found.metadata.get(layout.CAPTURED_PERCENT):
        account.percents.add(int(percent))
    account.hashed |= set(found.metadata.get(layout.HASHED_COLUMNS, "").split(",")) - {""}
    artifact = found.metadata.get(layout.CAPTURED_ARTIFACT)
    for batch in found.table.to_batches(max_chunksize=10_000):
        for values in batch.to_pylist():
            moment = values[RECEIVED]
            account.rows += 1
            account.first = min(account.first or moment, moment)
            account.last = max(account.last or moment, moment)
            facts = {name: _plain(values.get(f"{OURS}{name}")) for name in FACTS}
            rest = {name: _plain(value) for name, value in values.items() if not name.startswith(OURS)}
            yield {**facts, "artifact": artifact, **rest}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
