"""The rows that were captured of one request, looked for from the newest hour back.

Paths say when a file's first row was received, so that a search by time lists one hour or one day of each revision. Not
so by id: then files are read one after the other, the newest first, as many as the caller allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from truekeep.cli.erasure import Ranged, opened
from truekeep.cli.stores import folders
from truekeep.contract import layout
from truekeep.storage import ObjectMissing
from truekeep.storage.s3 import ObjectInfo

REQUEST_ID = "truekeep.request_id"
OURS = "truekeep."
THREADS = 8
GROUP = 64  # files between two looks at what was found
NEAR = timedelta(hours=1)  # around a find, further rows of the same id are looked for
_DATE = re.compile(r"revision=([0-9]+)/date=([0-9]{4}-[0-9]{2}-[0-9]{2})/")

Say = Callable[[str], None]


class Captures(Ranged, Protocol):
    """Where captures lie: a bucket, or a folder."""

    def uri(self, key: str = "") -> str:
        """The key's full address."""

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        """What lies below a prefix, in the order of the keys."""

    def get(self, key: str) -> bytes:
        """The bytes. ObjectMissing where there are none."""


@dataclass(frozen=True)
class Span:
    """Received at or after `start`, and before `end` (UTC); None: whenever."""

    start: datetime | None = None
    end: datetime | None = None

    def meets(self, start: datetime, end: datetime) -> bool:
        """Whether it has a moment in common with start <= time < end."""
        return (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(frozen=True)
class Row:
    """One captured row. `features`: as they were captured, numbers, text or None; hashes as texts."""

    file: str
    namespace: str
    model: str
    revision: int
    request_id: str
    row: int
    received: datetime
    event_time: datetime | None
    key: str | None
    probability: float
    prediction: int
    cut_off: float
    features: dict[str, Any]
    hashed: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    artifact: str | None = None  # as the file says it; files before 0.3 don't
    run: str | None = None
    percent: int | None = None
    format: str | None = None  # what answered: onnx, skops or image


@dataclass
class Search:
    """What was found, and how far the search went."""

    requests: list[list[Row]] = field(default_factory=list)  # the rows of each request of that id, the newest first
    files: int = 0
    oldest: datetime | None = None  # back to when files were searched
    complete: bool = True  # every file of the span was searched
    percents: set[int] = field(default_factory=set)  # shares of requests that the files say are captured
    unreadable: list[str] = field(default_factory=list)


def models(captures: Captures, namespace: str) -> list[str]:
    """Names below which something of a namespace lies."""
    return list(folders(captures, f"{namespace}/"))


def search(
    captures: Captures,
    namespace: str,
    names: Sequence[str],
    request_id: str,
    *,
    span: Span,
    most_files: int,
    say: Say,
) -> Search:
    """The rows of a request. StoreError where the store does not answer."""
    found = Search()
    files = _files(captures, namespace, names, span)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="search") as pool:
        while group := list(islice(files, min(GROUP, most_files - found.files))):
            if found.requests:  # further ones of this id are looked for in the hours around only
                newest = max(rows[0].received for rows in found.requests)
                if len(near := [item for item in group if item[1] > newest - NEAR]) < len(group):
                    group, files, found.complete = near, iter(()), False
            looked = pool.map(lambda item: _look(captures, namespace, item, request_id), group)
            for (model, until, info), rows in zip(group, looked, strict=True):
                found.files += 1
                found.oldest = until - timedelta(hours=1)
                if isinstance(rows, Exception):
                    found.unreadable.append(f"{info.key}: {' '.join(str(rows).split())[:200]} ({model})")
                    continue
                percent, requests = rows
                found.percents |= {percent} if percent is not None else set()
                found.requests += requests
            if found.files % (8 * GROUP) == 0 and found.oldest:
                say(f"{found.files:,} files searched, back to {found.oldest:%Y-%m-%d %H:00} UTC")
            if found.files >= most_files:
                found.complete = next(files, None) is None
                break
    found.requests.sort(key=lambda rows: rows[0].received, reverse=True)
    return found


def receipts(captures: Captures, namespace: str, model: str) -> list[str]:
    """Keys of what `truekeep erase` left, the newest first."""
    prefix = layout.captures(namespace, model) + "erasures/"
    return sorted((info.key for info in captures.list(prefix) if info.key.endswith(".json")), reverse=True)


def receipts_of(captures: Captures, row: Row) -> list[str]:
    """Receipts of the erasures that took rows out of a row's file."""
    named = []
    for key in receipts(captures, row.namespace, row.model):
        try:
            rewritten = json.loads(captures.get(key)).get("rewritten", [])
        except (ObjectMissing, ValueError, AttributeError):
            continue
        if row.file in rewritten:
            named.append(captures.uri(key))
    return named


def _files(
    captures: Captures, namespace: str, names: Sequence[str], span: Span
) -> Iterator[tuple[str, datetime, ObjectInfo]]:
    """Model, end of its hour, and object of each capture file in the span, the newest hour first."""
    days: list[tuple[str, str, str]] = []
    for model in names:
        base = layout.captures(namespace, model)
        for revision in folders(captures, base):
            if not revision.startswith("revision="):
                continue
            for day in folders(captures, f"{base}{revision}/"):
                start = day_of(day)
                if start is not None and span.meets(start, start + timedelta(days=1)):
                    days.append((day, model, f"{base}{revision}/{day}/"))
    for day in sorted({day for day, _, _ in days}, reverse=True):
        found = []
        for model, prefix in ((model, prefix) for of, model, prefix in days if of == day):
            for info in captures.list(prefix):
                until = layout.received_until(info.key)
                if until is None:
                    continue
                whole_day = info.key.removeprefix(prefix).count("/") == 0
                begin = until - (timedelta(days=1) if whole_day else timedelta(hours=1))
                if span.meets(begin, until + NEAR):  # a file's rows may be received in the hour after its first one
                    found.append((model, until, info))
        yield from sorted(found, key=lambda each: (each[1], each[2].key), reverse=True)


def day_of(name: str) -> datetime | None:
    """The day that a folder of captures is of."""
    try:
        return datetime.strptime(name, "date=%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _look(
    captures: Captures, namespace: str, item: tuple[str, datetime, ObjectInfo], request_id: str
) -> tuple[int | None, list[list[Row]]] | Exception:
    """What share the file says is captured, and the rows of the id, a list a request. An error that is about this file
    alone is the answer."""
    model, _, info = item
    try:
        with opened(captures, info) as file:
            metadata = said(file)
            percent = metadata.get(layout.CAPTURED_PERCENT)
            rows = []
            if any(_matching(batch, request_id) for batch in _batches(file, [REQUEST_ID])):  # most files hold it not
                rows = [
                    _row(values, model, namespace, info.key, metadata)
                    for batch in _batches(file)
                    for values in _matching(batch, request_id)
                ]
    except ObjectMissing:  # retention was quicker
        return None, []
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        return error
    requests: dict[datetime, list[Row]] = {}
    for one in rows:  # a request's rows were received together
        requests.setdefault(one.received, []).append(one)
    return int(percent) if percent else None, list(requests.values())


def _batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    yield from file.iter_batches(batch_size=65_536, columns=columns, use_threads=False)


def _matching(batch: pa.RecordBatch, request_id: str) -> list[dict[str, Any]]:
    ids = batch.column(batch.schema.get_field_index(REQUEST_ID))
    mask: Any = pc.equal(ids.cast(pa.string()), pa.scalar(request_id))
    found: list[dict[str, Any]] = batch.filter(mask).to_pylist()
    return found


def said(file: pq.ParquetFile) -> dict[str, str]:
    """What a capture file says of itself."""
    raw = file.metadata.metadata or {}
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in raw.items()}


def _row(values: dict[str, Any], model: str, namespace: str, file: str, said: dict[str, str]) -> Row:
    def listed(name: str) -> frozenset[str]:
        return frozenset(said.get(name, "").split(",")) - {""}

    given = {name.removeprefix(OURS): value for name, value in values.items() if name.startswith(OURS)}
    features = {name: value for name, value in values.items() if not name.startswith(OURS)}
    return Row(
        file=file,
        namespace=namespace,
        model=model,
        revision=int(given["revision"]),
        request_id=str(given["request_id"]),
        row=int(given["row"]),
        received=given["received_at"],
        event_time=given.get("event_time"),
        key=given.get("key"),
        probability=float(given["probability"]),
        prediction=int(given["prediction"]),
        cut_off=float(given["cut_off"]),
        features=features,
        hashed=listed(layout.HASHED_COLUMNS),
        dropped=listed(layout.DROPPED_COLUMNS),
        artifact=said.get(layout.CAPTURED_ARTIFACT),
        run=said.get(layout.CAPTURED_RUN),
        percent=int(said[layout.CAPTURED_PERCENT]) if said.get(layout.CAPTURED_PERCENT) else None,
        format=said.get(layout.CAPTURED_FORMAT),
    )
