"""One file of rows, piece by piece: a row group or a part of one of Parquet, some megabytes of CSV.

So a file may be far larger than memory; how much of it stays there is decided by who takes the pieces.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from truekeep.sources import partitions
from truekeep.sources.columns import SHOWN, Bad, Kind, Want
from truekeep.sources.objects import Content

BATCH_ROWS = 1 << 19  # of Parquet; a row group that has no more is read at once
BLOCK_BYTES = 8 << 20  # of CSV, decompressed
HEADER_BYTES = 1 << 20
MOST_RAGGED = 100_000  # rows of one file with another length than the header; with more it is none

_COMPRESSIONS: Final[dict[str, Literal["gzip", "zstd"]]] = {".gz": "gzip", ".zst": "zstd"}

Problem = tuple[str, Bad, Kind | None]  # column (empty: the file itself), what is wrong, as what it was wanted


@dataclass(frozen=True)
class Raw:
    """A piece of a file as it is: columns of text, named in `texts`, or of Arrow's types; and the numbers of its rows,
    from 1, shape (rows,)."""

    columns: dict[str, pa.Array[Any]]
    texts: frozenset[str]
    rows: npt.NDArray[np.int64]


@dataclass
class File:
    """One file, as it gets known by reading its pieces."""

    rows: int = 0
    types: dict[str, str] = field(default_factory=dict)  # of all its columns; empty where it can't be read
    problems: list[Problem] = field(default_factory=list)


def pieces(
    key: str, content: Content, wants: Sequence[Want], by: str, skip: Callable[[int], bool], file: File
) -> Iterator[Raw]:
    """The wanted columns, the last row groups first; what is told of the file is written into `file`. A file that
    can't be read is one problem, and all pieces before that may be of no use.

    `skip`: whether a row group whose greatest value of the column `by` is this can be left out unread."""
    folders = partitions.of(key)
    names = list(dict.fromkeys(want.name for want in wants))
    try:
        reader = _Parquet(content, names) if key.endswith(".parquet") else _Csv(key, content, names)
        file.types = {**reader.types, **{name: partitions.KIND for name in folders if name not in reader.types}}
        said = [(name, "is there twice", "give each column its own name") for name in reader.twice]
        both = [name for name in names if name in folders and name in reader.types]
        remedy = "leave it out of the files, or rename the folders"
        said += [(name, f"is in the file and in its path ({name}={folders[name]})", remedy) for name in both]
        if said:
            file.problems += [(name, Bad(None, (), words, remedy), None) for name, words, remedy in said]
            file.rows = reader.rows()
            return
        told = {name: value for name, value in folders.items() if name in names}
        for raw in reader.read(by, skip):
            constant = {name: pa.repeat(pa.scalar(value), len(raw.rows)) for name, value in told.items()}
            yield Raw({**raw.columns, **constant}, raw.texts | constant.keys(), raw.rows)
        file.rows = reader.rows()
        file.problems += reader.problems()
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        kind = "Parquet" if key.endswith(".parquet") else "CSV"
        bad = Bad(None, (), f"is no readable {kind} file ({error!s:.200})", "write it again, or move it away")
        file.rows, file.types, file.problems = 0, {}, [("", bad, None)]


class _Parquet:
    def __init__(self, content: Content, names: Sequence[str]) -> None:
        self._file = pq.ParquetFile(content.open())
        schema = self._file.schema_arrow
        self._names = [name for name in names if schema.names.count(name) == 1]
        self.types = {field.name: str(field.type) for field in schema}
        self.twice = sorted(name for name in names if schema.names.count(name) > 1)

    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def problems(self) -> list[Problem]:
        return []

    def read(self, by: str, skip: Callable[[int], bool]) -> Iterator[Raw]:
        metadata = self._file.metadata
        firsts = np.cumsum([1, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))])
        for group in reversed(range(metadata.num_row_groups)):
            about = metadata.row_group(group)
            newest = _greatest(about, by)
            if newest is not None and skip(newest):
                continue
            first = int(firsts[group])
            if about.num_rows <= BATCH_ROWS:
                table = self._file.read_row_group(group, columns=self._names)
                yield Raw(_arrays(table), frozenset(), np.arange(first, first + table.num_rows))
                continue
            for batch in self._file.iter_batches(BATCH_ROWS, [group], self._names):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield Raw(columns, frozenset(), np.arange(first, first + batch.num_rows))
                first += batch.num_rows


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


class _Csv:
    def __init__(self, key: str, content: Content, names: Sequence[str]) -> None:
        self._content = content
        self._compression = _COMPRESSIONS.get(key[key.rfind(".") :])
        self._header = self._read_header()
        self._names = [name for name in names if self._header.count(name) == 1]
        self.types = dict.fromkeys(self._header, "text")
        self.twice = sorted(name for name in names if self._header.count(name) > 1)
        self._rows = 0
        self._ragged: list[int] = []  # rows of another length than the header, which are left out
        self._lengths: list[str] = []  # of some of them

    def rows(self) -> int:
        return self._rows

    def problems(self) -> list[Problem]:
        if not self._ragged:
            return []
        rows = np.array(self._ragged, dtype=np.int64)
        words = f"has not the {len(self._header)} values of the header"
        return [("", Bad(rows, self._lengths, words, "quote values that hold a comma"), None)]

    def _stream(self) -> Any:
        source = self._content.open()
        return pa.CompressedInputStream(source, self._compression) if self._compression else source

    def _read_header(self) -> list[str]:
        with self._stream() as stream:
            start = bytes(stream.read(HEADER_BYTES))
        lines = io.BytesIO(start)
        header = lines.readline()
        while header.count(b'"') % 2 and (more := lines.readline()):  # a name may hold a line break
            header += more
        names = next(csv.reader([header.decode("utf-8-sig")]), [])
        if not names:
            raise pa.ArrowInvalid("it is empty, not even a header")
        if len(header) == HEADER_BYTES:
            raise pa.ArrowInvalid(f"its header has {HEADER_BYTES:,} bytes or more")
        self._ends = not header.endswith((b"\n", b"\r"))
        return names

    def read(self, by: str, skip: Callable[[int], bool]) -> Iterator[Raw]:
        if self._ends:
            return
        read = self._names or self._header[:1]  # with none of its own, one is read so that the rows are counted
        after = 1
        with self._stream() as stream:
            reader = pacsv.open_csv(
                stream,
                # Threads would take away the numbers of rows, and bring nothing where blocks are read one by one.
                read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
                parse_options=pacsv.ParseOptions(invalid_row_handler=self._left_out, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    include_columns=read,
                    column_types={name: pa.string() for name in read},
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                columns = dict(zip(batch.schema.names, batch.columns, strict=True)) if self._names else {}
                numbers = np.arange(after, after + batch.num_rows + len(self._ragged))
                numbers = numbers[~np.isin(numbers, self._ragged)][: batch.num_rows]
                yield Raw(columns, frozenset(columns), numbers)
                after = int(numbers[-1]) + 1 if len(numbers) else after
                self._rows += batch.num_rows

    def _left_out(self, row: pacsv.InvalidRow) -> Literal["skip", "error"]:
        self._ragged.append((row.number or 2) - 1)
        if len(self._lengths) < SHOWN:
            self._lengths.append(f"{row.actual_columns} values")
        if len(self._ragged) > MOST_RAGGED:
            return "error"
        return "skip"


def _arrays(table: pa.Table) -> dict[str, pa.Array[Any]]:
    return {
        name: pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
