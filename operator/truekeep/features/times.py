"""Times as a model sees them: microseconds since 1970 in UTC, as float64 (exact until the year 2255); null is NaN.

In data a time is a timestamp or ISO 8601 text, in a request ISO 8601 text (BYTES) or microseconds since 1970 (INT64).
Text without an offset is UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME = np.iinfo(np.int64).min  # the null of a column of int64
EARLIEST = -62_135_596_800_000_000  # the year 1
LATEST = 253_402_300_799_999_999  # the year 9999
EXAMPLE = "2013-05-01T12:00:00Z"


def from_text(text: str) -> int:
    """Microseconds since 1970. ValueError, with the reason, where the text is no ISO 8601 time."""
    try:
        if text[4:5] != "-":  # Python would read many a number, an epoch as text among them, as a date
            raise ValueError
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no ISO 8601 time; send for example {EXAMPLE}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    difference = moment - EPOCH
    return (difference.days * 86_400 + difference.seconds) * 1_000_000 + difference.microseconds


def to_text(microseconds: float) -> str:
    """ISO 8601."""
    moment = EPOCH + timedelta(microseconds=int(microseconds))
    return moment.isoformat().replace("+00:00", "Z")


def of_request(value: Any) -> float | None:
    """Microseconds since 1970 of one value of a request. ValueError, with the reason, where it is no time."""
    if value is None:
        return None
    if type(value) is str:
        return float(from_text(value))
    whole = type(value) is int or (isinstance(value, float | np.floating) and float(value).is_integer())
    if not (whole or isinstance(value, np.integer)) or not EARLIEST <= value <= LATEST:
        raise ValueError(
            f"{value!r:.40} is no time between the years 1 and 9999; send ISO 8601 text, for example {EXAMPLE}, or "
            "microseconds since 1970 as INT64"
        )
    return float(value)


def of_column(column: Any) -> npt.NDArray[np.float64]:
    """A column of data: timestamps (Arrow or numpy), ISO 8601 text, or int64 in which `NO_TIME` is the null; shape
    (rows,). TypeError where it is of another type, ValueError where a text is no time."""
    if isinstance(column, np.ndarray) and column.dtype == np.int64:
        return np.where(column == NO_TIME, np.nan, column.astype(np.float64))
    if isinstance(column, np.ndarray | pa.Array | pa.ChunkedArray):
        array: Any = column if not isinstance(column, np.ndarray) else pa.array(column, from_pandas=True)
    else:
        array = pa.array(column)
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        whole = pc.cast(pc.cast(array, pa.timestamp("us", zone), safe=False), pa.int64())
        return np.array(pc.cast(whole, pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: Sequence[str | None] = array.to_pylist()
        return np.array([math.nan if text is None else from_text(text) for text in texts], dtype=np.float64)
    raise TypeError(f"is of type {kind}, a Time must be timestamps or ISO 8601 text")


def presence(column: Any) -> pa.Array[Any]:
    """0 where a column of data has a time, null where it has none: what a profile keeps of it, because times always
    move on, and a window of them never looks like another."""
    return pa.array(np.where(np.isnan(of_column(column)), np.nan, 0.0), from_pandas=True)
