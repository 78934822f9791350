"""A Parquet file, read column by column in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.profiling.values import Array

BATCH_ROWS = 131_072  # 1 MiB of a column: sorted within a core's cache
TEXT_BATCH_ROWS = 1 << 20  # codes of a dictionary are small, and each batch costs a look at its dictionary
BUFFER_BYTES = 1 << 18  # of a file, a column at a time


class TableError(ValueError):
    """A file that can't be read as what it must be; the text names file, reason and remedy."""


class ParquetTable:
    """A Parquet file. Each column is read on its own, so that several can be counted at once, and a row group of any
    size costs no more than a batch of one column. TableError where the file is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._metadata = pq.read_metadata(path)
            self.schema: Any = self._metadata.schema.to_arrow_schema()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise TableError(f"{path}: can't be read as Parquet: {_first_line(error)}; give a Parquet file") from error
        self.rows = int(self._metadata.num_rows)
        names = self.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TableError(f"{path}: the column {twice[0]!r} occurs twice; give each column a name of its own")

    @property
    def names(self) -> list[str]:
        """Columns, in the file's order."""
        return list(self.schema.names)

    def batches(self, name: str) -> Iterator[Array]:
        """The column in batches of bounded size; text stays encoded by the file's dictionary."""
        if name not in self.schema.names:
            raise KeyError(name)
        kind = self.schema.field(name).type
        encoded = [name] if pa.types.is_string(kind) or pa.types.is_large_string(kind) else []
        try:
            with pq.ParquetFile(
                self.path, metadata=self._metadata, read_dictionary=encoded, buffer_size=BUFFER_BYTES, pre_buffer=False
            ) as file:
                rows = TEXT_BATCH_ROWS if encoded else BATCH_ROWS
                for batch in file.iter_batches(batch_size=rows, columns=[name], use_threads=False):
                    yield batch.column(name)
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{self.path}: column {name!r} can't be read: {_first_line(error)}") from error


def feature_type(kind: Any) -> Literal["Number", "Category"] | None:
    """What a column of an Arrow type is taken for where nobody says; None where it is neither."""
    if pa.types.is_dictionary(kind):
        return feature_type(kind.value_type)
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        return "Number"
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return "Category" if any(of(kind) for of in text) else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300].rstrip(".")
