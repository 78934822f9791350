"""What a revision predicted in one window: one row an event, with what joins its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.api.driftpolicy import Join
from truekeep.monitor import captures
from truekeep.monitor.captures import KEY, PROBABILITY, CaptureFile, Skipped
from truekeep.scores.metrics import Floats
from truekeep.sources.join import last_of_each
from truekeep.storage.s3 import Bucket

REQUEST_ID = "truekeep.request_id"
ROW = "truekeep.row"
MOST_ROWS = 2_000_000  # of a window; of more, so many are drawn
SEED = 20130101


@dataclass(frozen=True)
class Predicted:
    """Shape (rows,) each: what joins the label (null where a request had no key), and the probability of 1."""

    keys: pa.Array[Any]
    probabilities: Floats
    groups: dict[str, pa.Array[Any]]  # columns by which performance is told, as text
    repeated: int = 0  # rows that were left out, because a later one has the same key
    seen: int = 0  # rows of the window, before any was left out
    times: npt.NDArray[np.int64] | None = None  # ms, shape (rows,), where labels join by entity and time
    beside: tuple[pa.Array[Any], npt.NDArray[np.int64]] | None = None  # entities and times of other events
    below: int | None = None  # where rows were drawn by the hash of their entity: which hashes stayed

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Scope:
    """Which rows of a window are read, and what of them."""

    start: int  # ms, inclusive
    end: int  # ms, exclusive
    rows: int  # that the window is known to have
    join: Join
    groups: tuple[str, ...] = ()


def predicted(bucket: Bucket, files: Sequence[CaptureFile], scope: Scope, skipped: Skipped) -> Predicted:
    """The window's predictions; of several with one key the last, because a repeated request is one event.

    Of more than 2,000,000 rows so many are drawn, the same ones each time, so that memory is bounded."""
    random = np.random.default_rng(SEED)
    share = min(1.0, MOST_ROWS / max(1, scope.rows))
    names = [KEY] if scope.join == "Key" else [REQUEST_ID, ROW]
    parts: list[tuple[pa.Array[Any], Floats, dict[str, pa.Array[Any]]]] = []
    seen = 0
    for whole in captures.between(
        bucket, files, [PROBABILITY, *names, *scope.groups], start=scope.start, end=scope.end, skipped=skipped
    ):
        batch = whole
        rows = len(next(iter(batch.values())))
        seen += rows
        if PROBABILITY not in batch:
            continue
        if share < 1.0:
            drawn = pa.array(random.random(rows) < share)
            batch = {name: pc.filter(column, drawn) for name, column in batch.items()}
            rows = len(batch[PROBABILITY])
        groups = {name: text(batch[name]) if name in batch else pa.nulls(rows, pa.string()) for name in scope.groups}
        parts.append((_joins(batch, scope.join, rows), numbers(batch[PROBABILITY]), groups))
    if not parts:
        return Predicted(
            pa.nulls(0, pa.string()), np.empty(0), {name: pa.nulls(0, pa.string()) for name in scope.groups}
        )
    keys: pa.Array[Any] = pa.concat_arrays([keys for keys, _, _ in parts])
    probabilities = np.concatenate([known for _, known, _ in parts])
    last, _ = last_of_each(keys)
    kept = last & np.isfinite(probabilities)
    mask = pa.array(kept)
    columns: dict[str, Any] = {name: pa.concat_arrays([part[name] for _, _, part in parts]) for name in scope.groups}
    return Predicted(
        keys.filter(mask),
        probabilities[kept],
        {name: column.filter(mask) for name, column in columns.items()},
        repeated=int((~last).sum()),
        seen=seen,
    )


def _joins(batch: dict[str, Any], join: Join, rows: int) -> pa.Array[Any]:
    """What the label's key must equal."""
    if join == "Key":
        return text(batch[KEY]) if KEY in batch else pa.nulls(rows, pa.string())
    if REQUEST_ID not in batch:
        return pa.nulls(rows, pa.string())
    ids = text(batch[REQUEST_ID])
    if ROW not in batch:
        return ids
    place = batch[ROW].cast(pa.int64())
    compute: Any = pc  # its stubs lack this function
    joined: pa.Array[Any] = compute.if_else(
        compute.equal(place, 0), ids, compute.binary_join_element_wise(ids, place.cast(pa.string()), "/")
    )
    return joined


def text(column: Any) -> pa.Array[Any]:
    """A column as plain text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    found: pa.Array[Any] = column.cast(pa.string(), safe=False)
    return found


def numbers(column: Any) -> npt.NDArray[np.float64]:
    """A column as numbers, NaN for nulls."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
