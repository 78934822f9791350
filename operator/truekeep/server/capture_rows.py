"""Captured rows on their way into a Parquet file.

What is kept of a request is flat: an append a list and no object of its own, so that a thousand requests that wait
neither slow an answer nor give the garbage collector anything to walk. Numbers and categories are both in the matrix
that the model saw; a category's text comes from the signature when the file is made. Only categories that training
has never seen keep the text that the client sent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from truekeep.contract.artifact import UNKNOWN_CATEGORY, SignatureFeature
from truekeep.contract.hashing import number_text
from truekeep.features import times
from truekeep.features.encode import Matrix, Values, category_text, listed

Unknown = Mapping[int, Values]  # the feature's position -> the column as the client sent it

_TIME = pa.timestamp("us", tz="UTC")


class Hash(Protocol):
    """The keyed hashes of one column."""

    def all(self, values: Sequence[str | None]) -> list[str | None]:
        """Of each value; a null stays one."""


class Rows:
    """Requests that were answered, in the order in which they were."""

    __slots__ = (
        "counts", "event_times", "ids", "keys", "matrices", "probabilities", "received", "rows", "size", "unknown",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows = 0
        self.size = 0  # bytes of the requests, which stand for the memory that they take
        self.ids: list[str] = []
        self.counts: list[int] = []
        self.matrices: list[Matrix] = []
        self.probabilities: list[Matrix] = []
        self.received: list[int] = []
        # Of the requests that have such: by their position.
        self.event_times: dict[int, Sequence[int | None]] = {}
        self.keys: dict[int, Sequence[str | None]] = {}
        self.unknown: dict[int, Unknown] = {}

    def add(
        self,
        request_id: str,
        matrix: Matrix,
        probability: Matrix,
        received: int,
        *,
        event_times: Sequence[int | None] | None = None,
        keys: Sequence[str | None] | None = None,
        unknown: Unknown | None = None,
        size: int = 0,
    ) -> None:
        """One more request. `matrix`: (rows, features), as the model saw it; `probability`: (rows,); `received` and
        `event_times`: microseconds since 1970."""
        if event_times is not None:
            self.event_times[len(self.ids)] = event_times
        if keys is not None:
            self.keys[len(self.ids)] = keys
        if unknown:
            self.unknown[len(self.ids)] = unknown
        self.ids.append(request_id)
        self.matrices.append(matrix)
        self.probabilities.append(probability)
        self.received.append(received)
        rows = len(probability)
        self.counts.append(rows)
        self.rows += rows
        self.size += size


class Files:
    """Makes the files of one revision."""

    def __init__(
        self,
        features: Sequence[SignatureFeature],
        revision: int,
        cut_off: float,
        *,
        drop: Sequence[str] = (),
        key_column: str = "",
        hashes: Mapping[str, Hash] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._revision = revision
        self._cut_off = cut_off
        self._kept = tuple((position, one) for position, one in enumerate(features) if one.name not in drop)
        self._categories = {
            position: pa.array(one.categories or (), pa.string())
            for position, one in self._kept
            if one.type == "Category"
        }
        self._hashes = hashes or {}
        self._hash_of_keys = self._hashes.get(key_column)
        self._metadata: Any = dict(metadata) if metadata else None

    def table(self, batch: Rows) -> tuple[Any, int, int]:
        """The rows as a table, and their first and last event time (microseconds since 1970)."""
        counts = np.array(batch.counts, dtype=np.int64)
        matrix = np.concatenate(batch.matrices)
        probability = np.concatenate(batch.probabilities)
        starts = np.cumsum(counts) - counts
        many = batch.rows != len(counts)
        request: npt.NDArray[np.int64] = np.repeat(np.arange(len(counts)), counts) if many else np.arange(len(counts))
        ids, received = pa.array(batch.ids, pa.string()), np.array(batch.received, dtype=np.int64)
        if many:
            ids, received = ids.take(request), received[request]
        event_time = _optional(batch.event_times, batch.counts, pa.int64())
        keys = _optional(batch.keys, batch.counts, pa.string())
        if self._hash_of_keys is not None:
            keys = pa.array(self._hash_of_keys.all(keys.to_pylist()), pa.string())
        event = np.where(event_time.is_null(), received, event_time.fill_null(0))
        columns: dict[str, Any] = {
            "truekeep.request_id": ids,
            "truekeep.row": pa.array((np.arange(batch.rows) - starts[request]).astype(np.int32)),
            "truekeep.revision": pa.array(np.full(batch.rows, self._revision, dtype=np.int32)),
            "truekeep.received_at": pa.array(received).cast(_TIME),
            "truekeep.event_time": event_time.cast(_TIME),
            "truekeep.key": keys,
            "truekeep.probability": pa.array(probability),
            "truekeep.prediction": pa.array((probability >= self._cut_off).astype(np.int64)),
            "truekeep.cut_off": pa.array(np.full(batch.rows, self._cut_off)),
        }
        for position, feature in self._kept:
            values, hash_of = np.ascontiguousarray(matrix[:, position]), self._hashes.get(feature.name)
            if feature.type == "Time":
                columns[feature.name] = _times(values) if hash_of is None else _hashed_times(values, hash_of)
            elif feature.type == "Number":
                columns[feature.name] = _numbers(values) if hash_of is None else _hashed_numbers(values, hash_of)
            else:
                columns[feature.name] = self._texts(position, values, batch.unknown, starts, hash_of)
        return pa.table(columns), int(event.min()), int(event.max())

    def file(self, batch: Rows) -> tuple[bytes, int, int]:
        """A Parquet file of the rows, and their first and last event time (microseconds since 1970)."""
        table, first, last = self.table(batch)
        sink = pa.BufferOutputStream()
        # Text repeats itself; for numbers a dictionary is mostly built in vain, and is most of the time it takes. The
        # dictionaries of the table stay here: readers get plain text. snappy, because zstd takes twice the time for
        # files that are a quarter smaller; statistics only of what somebody may look for.
        repeated = batch.rows > 4 * len(batch.ids)
        texts: Any = [
            name for name in table.column_names if _is_text(table[name].type) and (repeated or name not in _DISTINCT)
        ]
        indexed: Any = _INDEXED
        with pq.ParquetWriter(
            sink,
            table.schema,
            compression="snappy",
            use_dictionary=texts,
            store_schema=False,
            write_statistics=indexed,
        ) as writer:
            writer.write_table(table)
            if self._metadata:
                writer.add_key_value_metadata(self._metadata)
        return sink.getvalue().to_pybytes(), first, last

    def _texts(
        self,
        position: int,
        codes: Matrix,
        unknown: Mapping[int, Unknown],
        starts: npt.NDArray[np.int64],
        hash_of: Hash | None,
    ) -> Any:
        """A Category's column as texts."""
        missing = np.isnan(codes)
        indices = np.where(missing, 0, codes).astype(np.int32)
        dictionary = self._categories[position]
        if (codes == UNKNOWN_CATEGORY).any():
            dictionary = self._with_unknown(position, indices, unknown, starts)
        if hash_of is not None:
            dictionary = pa.array(hash_of.all(dictionary.to_pylist()), pa.string())
        positions: Any = pa.array(indices, mask=missing)
        return pa.DictionaryArray.from_arrays(positions, dictionary)

    def _with_unknown(
        self, position: int, indices: Any, unknown: Mapping[int, Unknown], starts: npt.NDArray[np.int64]
    ) -> Any:
        """The dictionary with what training has never seen, to which the indices point from now on."""
        known = len(self._categories[position])
        further: dict[str, int] = {}
        for request, columns in unknown.items():
            if position not in columns:
                continue
            values, start = listed(columns[position]), int(starts[request])
            for row in np.flatnonzero(indices[start : start + len(values)] == UNKNOWN_CATEGORY).tolist():
                text = category_text(values[row])
                assert text is not None  # a null is no unknown category
                indices[start + row] = further.setdefault(text, known + len(further))
        return pa.concat_arrays([self._categories[position], pa.array(list(further), pa.string())])


_DISTINCT = frozenset(("truekeep.request_id", "truekeep.key"))
_INDEXED = ["truekeep.event_time", "truekeep.key", "truekeep.received_at"]


def _is_text(kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _numbers(values: Matrix) -> Any:
    return pa.array(values, from_pandas=True)  # NaN as null


def _times(values: Matrix) -> Any:
    missing = np.isnan(values)
    return pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing).cast(_TIME)


def _hashed_times(values: Matrix, hash_of: Hash) -> Any:
    texts = [None if math.isnan(value) else times.to_text(value) for value in values.tolist()]
    return pa.array(hash_of.all(texts), pa.string())


def _hashed_numbers(values: Matrix, hash_of: Hash) -> Any:
    return pa.array(hash_of.all([number_text(value) for value in values.tolist()]), pa.string())


def _optional(parts: Mapping[int, Sequence[Any]], counts: Sequence[int], kind: Any) -> Any:
    """The parts of all requests behind each other; one that is missing is so many nulls."""
    if not parts:
        return pa.nulls(sum(counts), kind)
    filled = (parts.get(request) or itertools.repeat(None, count) for request, count in enumerate(counts))
    return pa.array(list(itertools.chain.from_iterable(filled)), kind)
