"""Columns as they come (Arrow or numpy, any type that a Number or a Category may have) as plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.features import encode

Array: TypeAlias = "pa.Array[Any] | pa.ChunkedArray[Any] | np.ndarray[Any, Any]"
Floats = np.ndarray[Any, np.dtype[np.float64]]
CODES = 1 << 16  # that are counted at once
CATEGORY_LENGTH = 120  # characters of a category's text that are kept; a longer one is cut and gets a digest


class WrongTypeError(ValueError):
    """The column's type can't be what its feature declares."""


class Numbers(NamedTuple):
    """Values of a Number column; NaN and infinities are among `values`, nulls are not."""

    rows: int
    nulls: int
    values: Floats


class Categories(NamedTuple):
    """Distinct values of a Category column, with their counts."""

    rows: int
    nulls: int
    counts: dict[str, int]


def numbers(array: Array) -> Numbers:
    """Shape (rows,) of integers, decimals, floats or booleans as float64. WrongTypeError for any other type."""
    if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
        return Numbers(len(array), 0, array.astype(np.float64, copy=False))
    if isinstance(array, pa.Array) and array.type == pa.float64():  # no copy: this is where time goes
        known = array.drop_null() if array.null_count else array
        return Numbers(len(array), array.null_count, np.asarray(known.to_numpy(zero_copy_only=True)))
    column = arrow(array)
    if column.null_count == len(column):
        return Numbers(len(column), len(column), np.empty(0))
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or kind == pa.bool_()):
        raise WrongTypeError(f"has type {kind}, not a number")
    present: Any = column.drop_null()
    if pa.types.is_dictionary(present.type):
        present = present.cast(kind)
    if present.type == pa.bool_():
        present = present.cast(pa.uint8())
    floats = np.asarray(present.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return Numbers(len(column), len(column) - len(present), floats)


def categories(array: Array) -> Categories:
    """Shape (rows,) of text, or of integers or booleans that are codes, counted by their text (`features.encode`).

    WrongTypeError for any other type."""
    column = arrow(array)
    if column.null_count == len(column):
        return Categories(len(column), len(column), {})
    found: dict[str, int] = {}
    nulls = 0
    for values, counts in _counted(column):
        for value, count in zip(values, counts, strict=True):
            if value is None:
                nulls += count
                continue
            name = bounded(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
            found[name] = found.get(name, 0) + count
    return Categories(len(column), nulls, found)


def _counted(column: pa.ChunkedArray[Any]) -> Iterator[tuple[list[Any], list[int]]]:
    """Values, None among them, and how often each occurs; a value may come several times."""
    kind = column.type
    encoded = pa.types.is_dictionary(kind)
    if (kind.value_type if encoded else kind) not in (pa.string(), pa.large_string()):
        try:
            kind = pa.string()
            column = pa.chunked_array([encode.texts("", column)])
        except encode.FeatureError as error:
            raise WrongTypeError(str(error).removeprefix(": ")) from error
        encoded = False
    if encoded:
        for chunk in column.chunks:
            yield _counted_codes(chunk)
        return
    # As bytes, because a file may hold text that is no UTF-8.
    counted: Any = pc.value_counts(column.cast(pa.large_binary()))
    yield counted.field("values").to_pylist(), counted.field("counts").to_pylist()


def _counted_codes(chunk: Any) -> tuple[list[Any], list[int]]:
    """Likewise of a chunk that is encoded by a dictionary: its codes are counted, no text is touched."""
    codes = chunk.indices
    values: Any = chunk.dictionary.cast(pa.large_binary())
    counts = np.zeros(len(values), dtype=np.int64)
    for start in range(0, len(codes), CODES):  # counting makes a copy
        part = codes.slice(start, CODES)
        part = part.drop_null() if part.null_count else part
        counts += np.bincount(part.to_numpy(zero_copy_only=True), minlength=len(values))
    present = np.flatnonzero(counts)
    texts = values.take(pa.array(present)).to_pylist()
    return [*texts, None], [*counts[present].tolist(), codes.null_count]


def bounded(text: str) -> str:
    """The text, or where it is long its beginning and a digest: equal texts stay equal, different ones different."""
    if len(text) <= CATEGORY_LENGTH:
        return text
    return f"{text[:CATEGORY_LENGTH]}…{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def arrow(array: Array) -> pa.ChunkedArray[Any]:
    """As one Arrow column; in a numpy array of objects None and NaN are nulls."""
    if isinstance(array, pa.ChunkedArray):
        return array
    try:
        whole = array if isinstance(array, pa.Array) else pa.array(array, from_pandas=array.dtype.kind == "O")
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise WrongTypeError(f"has values of several types: {error}") from error
    return pa.chunked_array([whole])
