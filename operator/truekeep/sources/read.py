"""Reading a source: every Parquet and CSV object below a prefix, pinned by what names exactly its bytes.

Only wanted columns are decoded, and rows that can't be of use are dropped file by file, so that memory holds about
the window, not the whole lake. Objects are read from the last key to the first: names usually grow with time, so the
newest events are known early and old row groups of Parquet files can be skipped by their statistics.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from truekeep.sources import columns
from truekeep.sources.columns import Bad, Kind, Values, Want
from truekeep.storage.s3 import Fetched, ObjectInfo

SUFFIXES = (".parquet", ".csv", ".csv.gz")
AHEAD = 8  # objects that are fetched while others are decoded
AHEAD_BYTES = 256 << 20

Field = tuple[str, str]  # name and type
Problem = tuple[str, Bad, Kind | None]  # column, what is wrong, as what it was wanted


class Objects(Protocol):
    """Where objects come from: a bucket, or anything else that lists and fetches."""

    def list(self, prefix: str = "", start_after: str | None = None) -> Iterator[ObjectInfo]: ...
    def fetch(self, key: str, version_id: str | None = None) -> Fetched: ...
    def uri(self, key: str = "") -> str: ...


@dataclass(frozen=True)
class Pin:
    """What names exactly one object that was read."""

    source: str
    uri: str
    version_id: str | None
    etag: str
    size: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Found:
    """A problem of one file: which column (empty: the file itself), and which rows, counted from 1 (None: all).

    `kind`: as what it could not be read; None where it is missing, or the file itself is the problem."""

    file: int
    column: str
    bad: Bad
    kind: Kind | None = None


@dataclass
class Table:
    """What was read of one source: columns of shape (rows,), and where each row comes from."""

    name: str  # what the source is for, in messages: source, label, join weather
    files: list[str] = field(default_factory=list)
    file_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    row_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    columns: dict[Want, Values] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)  # all columns of all files: name -> type, or types
    problems: list[Found] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.row_of)

    def select(self, which: npt.NDArray[Any]) -> Table:
        """The rows of a mask or at positions; problems stay."""
        return Table(
            self.name,
            self.files,
            self.file_of[which],
            self.row_of[which],
            {want: columns.select(values, which) for want, values in self.columns.items()},
            self.known,
            self.problems,
            self.pins,
        )


@dataclass(frozen=True)
class Selection:
    """Which rows are of use, told by one column, which is converted first.

    `keep`: its values -> mask. `skip`: whether a Parquet row group whose greatest value of that column is this one, in
    microseconds since 1970, can be left out unread."""

    by: Want
    keep: Callable[[Values], npt.NDArray[np.bool_]]
    skip: Callable[[int], bool] = lambda _: False


@dataclass
class _Part:
    """One file."""

    rows: int
    row_of: npt.NDArray[np.int64]
    columns: dict[Want, Values]
    types: dict[str, str]  # of all its columns; empty where the file can't be read
    problems: list[Problem]


@dataclass(frozen=True)
class _Raw:
    """A piece of a file as it is: columns of text (CSV) or of Arrow's types (Parquet), first row's number."""

    columns: dict[str, pa.Array[Any]]
    first: int
    rows: int


def read_table(objects: Objects, name: str, wants: Sequence[Want], selection: Selection) -> Table:
    """Every data file of the source, in the order of the keys. StoreError where the store is at fault; what is wrong
    with the files is in `problems`."""
    infos = [info for info in objects.list() if is_data(info.key)]
    parts: list[_Part] = []
    pins: list[Pin] = []
    for info, fetched, digest in _fetched(objects, reversed(infos)):
        part = _decode(info.key, fetched.data, wants, selection)
        parts.append(part)
        version = fetched.version_id
        pins.append(Pin(name, objects.uri(info.key), version, fetched.etag, len(fetched.data), digest, part.rows))
    return _joined(name, wants, parts[::-1], pins[::-1])


def _joined(name: str, wants: Sequence[Want], parts: list[_Part], pins: list[Pin]) -> Table:
    table = Table(name, [pin.uri for pin in pins], pins=pins)
    for part in parts:
        for column, kind in part.types.items():
            before = table.known.get(column, kind)
            table.known[column] = before if kind in before.split(" or ") else f"{before} or {kind}"
    table.file_of = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.row_of) for part in parts])
    table.row_of = np.concatenate([part.row_of for part in parts]) if parts else table.row_of
    for number, part in enumerate(parts):
        table.problems.extend(Found(number, *problem) for problem in part.problems)
        missing = [want for want in wants if part.types and want.name in table.known and want.name not in part.types]
        for column in dict.fromkeys(want.name for want in missing):
            remedy = "write it in every file, empty where it is unknown"
            table.problems.append(Found(number, column, Bad(None, (), "is missing, but other files have it", remedy)))
    for want in wants:
        if want.name in table.known:
            kind = want.kind
            pieces = [
                part.columns.pop(want) if want in part.columns else columns.empty(kind, len(part.row_of))
                for part in parts
            ]
            table.columns[want] = columns.concatenate(pieces, want.kind)
    return table


def is_data(key: str) -> bool:
    """Data by suffix; names that begin with a dot or an underscore are marks of other tools."""
    return key.endswith(SUFFIXES) and not key.rsplit("/", 1)[-1].startswith((".", "_"))


def _fetched(objects: Objects, infos: Iterator[ObjectInfo]) -> Iterator[tuple[ObjectInfo, Fetched, str]]:
    """Objects in the given order with their sha256, some fetched ahead."""

    def fetch(key: str) -> tuple[Fetched, str]:
        fetched = objects.fetch(key)
        return fetched, f"sha256:{hashlib.sha256(fetched.data).hexdigest()}"

    waiting: deque[tuple[ObjectInfo, Future[tuple[Fetched, str]]]] = deque()
    held = 0
    upcoming = next(infos, None)
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch") as pool:
        while waiting or upcoming:
            while upcoming and len(waiting) < AHEAD and (not waiting or held + upcoming.size <= AHEAD_BYTES):
                waiting.append((upcoming, pool.submit(fetch, upcoming.key)))
                held += upcoming.size
                upcoming = next(infos, None)
            info, future = waiting.popleft()
            fetched, digest = future.result()
            held -= info.size
            yield info, fetched, digest


def _decode(key: str, data: bytes, wants: Sequence[Want], selection: Selection) -> _Part:
    """One file's useful rows; a file that can't be read is one problem."""
    problems: list[Problem] = []
    try:
        if key.endswith(".parquet"):
            fields, rows, pieces = _parquet(data, wants, selection)
        else:
            fields, rows, pieces = _csv(data, wants, key.endswith(".gz"), problems)
        names = [name for name, _ in fields]
        if twice := sorted({want.name for want in wants if names.count(want.name) > 1}):
            bad = Bad(None, (), "is there twice", "give each column its own name")
            problems += [(name, bad, None) for name in twice]
            pieces = []
        parts = [_piece(raw, wants, selection, not key.endswith(".parquet")) for raw in pieces]
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        kind = "Parquet" if key.endswith(".parquet") else "CSV"
        bad = Bad(None, (), f"is no readable {kind} file ({error!s:.200})", "write it again, or move it away")
        return _Part(0, np.empty(0, np.int64), {}, {}, [("", bad, None)])
    kept = {want for want in wants if want.name in names}
    return _Part(
        rows,
        np.concatenate([part.row_of for part in parts]) if parts else np.empty(0, np.int64),
        {want: columns.concatenate([part.columns[want] for part in parts], want.kind) for want in kept},
        dict(fields),
        problems + [problem for part in parts for problem in part.problems],
    )


def _piece(raw: _Raw, wants: Sequence[Want], selection: Selection, from_text: bool) -> _Part:
    """Convert the telling column first, and the others only for rows that are of use."""
    part = _Part(raw.rows, np.arange(raw.first, raw.first + raw.rows), {}, {}, [])
    keep: npt.NDArray[np.bool_] | None = None
    if selection.by.name in raw.columns:
        telling, bad = columns.convert(selection.by.name, raw.columns[selection.by.name], selection.by.kind, from_text)
        keep = selection.keep(telling)
        if bad is not None and bad.positions is not None:
            keep[bad.positions] = True  # a row that can't be placed must not vanish
    if keep is not None and not keep.all():
        part.row_of = part.row_of[keep]
    else:
        keep = None
    for want in wants:
        if want.name not in raw.columns:
            continue
        column = raw.columns[want.name] if keep is None else raw.columns[want.name].filter(pa.array(keep))
        part.columns[want], bad = columns.convert(want.name, column, want.kind, from_text)
        if bad is not None and bad.positions is not None:
            bad = Bad(part.row_of[bad.positions], bad.values, bad.problem, bad.remedy)
        if bad is not None:
            part.problems.append((want.name, bad, want.kind))
    return part


def _parquet(data: bytes, wants: Sequence[Want], selection: Selection) -> tuple[list[Field], int, list[_Raw]]:
    """Names and types of all columns, number of rows, and the wanted columns of those row groups that are of use."""
    file = pq.ParquetFile(pa.BufferReader(data))
    metadata = file.metadata
    names = file.schema_arrow.names
    wanted = [name for name in dict.fromkeys(want.name for want in wants) if names.count(name) == 1]
    pieces: list[_Raw] = []
    first = 1
    for group in reversed(range(metadata.num_row_groups)):
        newest = _greatest(metadata.row_group(group), selection.by.name)
        if newest is None or not selection.skip(newest):
            first = 1 + sum(metadata.row_group(earlier).num_rows for earlier in range(group))
            table = file.read_row_group(group, columns=wanted)
            pieces.append(_Raw(_arrays(table), first, table.num_rows))
    fields = [(field.name, str(field.type)) for field in file.schema_arrow]
    return fields, metadata.num_rows, pieces[::-1]


def _greatest(group: Any, column: str) -> int | None:
    """A row group's newest time by its statistics, in microseconds since 1970; None where that is not told."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column:
            return _greatest_of(chunk.statistics)
    return None


def _greatest_of(statistics: Any) -> int | None:
    if statistics is None or not statistics.has_min_max or statistics.null_count:
        return None
    try:
        greatest = statistics.max
        if not isinstance(greatest, datetime | date):
            return None
        kind = pa.timestamp("us", "UTC" if getattr(greatest, "tzinfo", None) else None)
        return int(pa.scalar(greatest, kind).cast(pa.int64()).as_py())
    except (ValueError, OverflowError, pa.ArrowException):  # nanoseconds that Python's datetime can't hold
        return None


def _csv(
    data: bytes, wants: Sequence[Want], compressed: bool, problems: list[Problem]
) -> tuple[list[Field], int, list[_Raw]]:
    """Names of all columns, number of rows, and the wanted columns as text."""
    with gzip.open(io.BytesIO(data)) if compressed else io.BytesIO(data) as stream:
        header = stream.readline()
        while header.count(b'"') % 2 and (more := stream.readline()):  # a name may hold a line break
            header += more
    names = next(csv.reader([header.decode("utf-8-sig")]), [])
    if not names:
        raise pa.ArrowInvalid("it is empty, not even a header")
    wanted = [name for name in dict.fromkeys(want.name for want in wants) if names.count(name) == 1]
    ragged: list[pacsv.InvalidRow] = []

    def skip(row: pacsv.InvalidRow) -> Literal["skip"]:
        ragged.append(row)
        return "skip"

    def parse(threads: bool) -> pa.Table:
        ragged.clear()
        source: Any = pa.BufferReader(data)
        if compressed:
            source = pa.CompressedInputStream(source, "gzip")
        return pacsv.read_csv(
            source,
            read_options=pacsv.ReadOptions(use_threads=threads),
            parse_options=pacsv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                include_columns=wanted or names[:1],
                column_types={name: pa.string() for name in (wanted or names[:1])},
                strings_can_be_null=False,
            ),
        )

    table = parse(threads=True)
    if ragged:
        table = parse(threads=False)  # only then a row's number is told
        rows = np.array([(row.number or 2) - 1 for row in ragged], dtype=np.int64)
        shown = [f"{row.actual_columns} values" for row in ragged]
        problem, remedy = f"has not the {len(names)} values of the header", "quote values that hold a comma"
        problems.append(("", Bad(rows, shown, problem, remedy), None))
    return (
        [(name, "text") for name in names],
        table.num_rows,
        [_Raw(_arrays(table) if wanted else {}, 1, table.num_rows)],
    )


def _arrays(table: pa.Table) -> dict[str, pa.Array[Any]]:
    return {
        name: pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
