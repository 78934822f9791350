"""Counts the rows that came since the last run: `python -m truekeep.monitor.newdata`.

Request in TRUEKEEP_REQUEST, result as termination message. A row counts when its event is newer than all that the last
run used, and its label is known and final. Of each file only time, key and label are decoded. Files are read from the
last name to the first, because names usually grow with time, until several in a row held nothing new; so a look costs
what is new, not what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.api.data import Data
from truekeep.contract.canonical import digest_of
from truekeep.contract.requests import CountRequest
from truekeep.contract.results import EXIT_JUDGED, EXIT_OUTSIDE, CountResult
from truekeep.monitor.errand import Done, run
from truekeep.sources.columns import NO_LABEL, NO_TIME, Values, Want
from truekeep.sources.errors import SourceInvalid
from truekeep.sources.objects import data_files
from truekeep.sources.places import Opened, in_pod
from truekeep.sources.read import Objects, Selection, Table, read_table
from truekeep.storage import StoreError
from truekeep.storage.s3 import Fetched, ObjectInfo

STOP_AFTER = 8  # files in a row without anything new
MICROSECONDS = 1_000_000


@dataclass
class Count:
    """What is there. `listing`: digest of all files' names, sizes and ETags."""

    rows: int = 0
    newest: int = NO_TIME  # microseconds since 1970
    listing: str = ""
    problem: str = ""  # a file that can't be read


@dataclass(frozen=True)
class _OneFile:
    """A source that holds one of the files of another."""

    inner: Objects
    info: ObjectInfo

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]:
        return iter([self.info])

    def fetch(self, key: str, version_id: str | None = None, *, span: tuple[int, int] | None = None) -> Fetched:
        return self.inner.fetch(key, version_id, span=span)

    def uri(self, key: str = "") -> str:
        return self.inner.uri(key)


@dataclass
class _New:
    """Rows that are new, of all files so far."""

    times: list[Any] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    labelled: list[Any] = field(default_factory=list)


def count(data: Data, since: datetime, opened: Opened) -> Count:
    """New rows with a label that is final. StoreError or SourceInvalid where one can't be read."""
    after = int(since.timestamp()) * MICROSECONDS + since.microsecond
    result, new = Count(), _New()
    source = opened(data.source.place)
    files = data_files(source)
    listed = [("source", files)]
    label, time, key = Want(data.label.column, "Label"), Want(data.time_column, "Time"), Want(data.key, "Category")
    inline = data.label.source is None

    def take(table: Table) -> bool:
        times: Any = table.columns.get(time, np.empty(0, np.int64))
        result.newest = max(result.newest, int(times.max(initial=NO_TIME)))
        mask = times > after
        new.times.append(times[mask])
        if inline:
            new.labelled.append(np.asarray(table.columns[label])[mask] != NO_LABEL)
        else:
            keys: Any = table.columns[key]
            new.keys.append(keys.filter(pa.array(mask)))
        return bool(mask.any())

    wants = [time, label if inline else key]
    newer = Selection(time, lambda values: np.asarray(values) > after, lambda greatest: greatest <= after)
    result.problem = _walk(source, files, wants, newer, take)
    times = np.concatenate([*new.times, np.empty(0, np.int64)])
    if inline:
        labelled = np.concatenate([*new.labelled, np.empty(0, np.bool_)])
    else:
        assert data.label.source is not None
        labels = opened(data.label.source.place)
        label_files = data_files(labels)
        listed.append(("label", label_files))
        labelled, problem = _labelled(labels, label_files, pa.concat_arrays(new.keys) if new.keys else None, key, label)
        result.problem = result.problem or problem
    ripe = times <= result.newest - data.label.matures_after_seconds * MICROSECONDS
    result.rows = int((labelled & ripe).sum()) if len(times) else 0
    result.listing = digest_of([[name, info.key, info.size, info.etag] for name, infos in listed for info in infos])
    return result


def _walk(
    objects: Objects, files: list[ObjectInfo], wants: list[Want], selection: Selection, take: Callable[[Table], bool]
) -> str:
    """Hands over file after file, the last name first; the first thing that is wrong with one of them."""
    idle, problem = 0, ""
    for info in reversed(files):
        table = read_table(_OneFile(objects, info), "source", wants, selection)
        missing = [want.name for want in wants if want not in table.columns]
        if missing and len(table.known):
            problem = problem or f"{info.key} has no column {missing[0]}"
        if table.problems and not problem:
            bad = table.problems[0]
            problem = f"{info.key}: {bad.column or 'the file'} {bad.bad.problem}"
        if missing:
            continue
        idle = 0 if take(table) else idle + 1
        if idle >= STOP_AFTER:
            break
    return problem


def _labelled(
    objects: Objects, files: list[ObjectInfo], keys: Any, key: Want, label: Want
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], str]:
    """Which of the keys have a label."""
    if keys is None or not len(keys):
        return np.empty(0, np.bool_), ""
    found = np.zeros(len(keys), np.bool_)

    def keep(values: Values) -> Any:
        return pc.is_in(values, value_set=keys, skip_nulls=True).to_numpy(zero_copy_only=False)  # type: ignore[arg-type]

    def take(table: Table) -> bool:
        known: Any = table.columns[key]
        known = known.filter(pa.array(np.asarray(table.columns[label]) != NO_LABEL))
        if not len(known):
            return False
        mask: Any = pc.is_in(keys, value_set=known, skip_nulls=True)
        found[:] |= mask.to_numpy(zero_copy_only=False)
        return True

    problem = _walk(objects, files, [key, label], Selection(key, keep), take)
    return found, problem


def main() -> int:
    """One count. The exit code is one of `contract.results`."""
    return run(CountRequest, "the count", _work)


def _work(request: CountRequest) -> Done:
    code = EXIT_JUDGED
    try:
        seen = count(request.data, request.since, in_pod)
        newest = None if seen.newest == NO_TIME else datetime.fromtimestamp(seen.newest / MICROSECONDS, UTC)
        reason = "DataInvalid" if seen.problem else "Counted"
        result = _result(request, reason, seen.problem, seen.rows, newest, seen.listing)
    except StoreError as error:
        result, code = _result(request, "StoreUnreachable", str(error)), EXIT_OUTSIDE
    except SourceInvalid as error:
        result = _result(request, "DataInvalid", str(error))
    found = f"{result.rows:,} new labelled rows since {request.since:%Y-%m-%d %H:%M} UTC {result.message}"
    handed_over = result.model_dump_json(by_alias=True, exclude_none=True)
    return Done(f"{result.reason}: {found}", handed_over, code)


def _result(
    request: CountRequest, reason: str, message: str, rows: int = 0, newest: datetime | None = None, listing: str = ""
) -> CountResult:
    return CountResult.model_validate(
        {
            "modelUid": request.model_uid,
            "since": request.since,
            "reason": reason,
            "message": message[:1024],
            "rows": rows,
            "newest": newest,
            "listing": listing,
        }
    )


if __name__ == "__main__":
    sys.exit(main())
