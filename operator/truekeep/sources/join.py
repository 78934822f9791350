"""Joins by key and as of a time, on plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from truekeep.sources.columns import NO_TIME, codes, nulls, select

Positions = npt.NDArray[np.int64]


def last_of_each(keys: pa.Array[Any]) -> tuple[npt.NDArray[np.bool_], int]:
    """Mask of the last row of each key, shape (rows,), and how many rows have a key that occurs more than once.
    Rows without a key are all kept."""
    code, _ = codes(keys)
    rows = np.arange(len(code))
    last = np.empty(int(code.max(initial=0)) + 1, dtype=np.int64)
    last[code[code >= 0]] = rows[code >= 0]  # of equal indices numpy keeps the last
    counts = np.bincount(code[code >= 0], minlength=1)
    return (last[code] == rows) | (code < 0), int(counts[counts > 1].sum())


def by_key(left: pa.Array[Any], right: pa.Array[Any]) -> Positions:
    """For each left key the position of the last equal right key, -1 where there is none. Shape (left,)."""
    keep, _ = last_of_each(right)
    positions = np.append(np.flatnonzero(keep & ~nulls(right, "Category")), -1)
    distinct: Any = select(right, positions[:-1])
    found: Any = pc.index_in(left, value_set=distinct, skip_nulls=True)
    return np.asarray(positions[pc.fill_null(found, -1).to_numpy(zero_copy_only=False)])


class Among:
    """Which rows of file after file may have one of these keys: every row that has, and few others.

    To look keys up, all of them are hashed anew for each file, which takes longer than to read it. So rows are taken by
    the range of the keys alone, until they are twice as many as the keys; only then each is looked up."""

    def __init__(self, keys: pa.Array[Any]) -> None:
        self._keys = keys
        ends: Any = pc.min_max(keys)
        self._least, self._greatest = ends["min"], ends["max"]
        self._room = 2 * len(keys)

    def __call__(self, values: Any) -> npt.NDArray[np.bool_]:
        """Mask of the rows, shape (rows,). A null is none of them."""
        found: Any = pc.and_(pc.greater_equal(values, self._least), pc.less_equal(values, self._greatest))
        mask = np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
        taken = int(mask.sum())
        if taken > self._room:
            found = pc.is_in(values, value_set=self._keys, skip_nulls=True)
            mask = np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)
            taken = int(mask.sum())
        self._room -= taken
        return mask


def as_of(
    left_times: npt.NDArray[np.int64],
    left_by: Sequence[pa.Array[Any]],
    right_times: npt.NDArray[np.int64],
    right_by: Sequence[pa.Array[Any]],
    max_age: int | None,
) -> Positions:
    """For each left row the position of the newest right row with equal `by` values that is not newer than it, and
    not older than `max_age`; -1 where there is none. Times in microseconds. Shape (left,).

    Of right rows with equal time and `by` values the last wins. A null equals nothing."""
    left_groups, right_groups = _groups(left_by, right_by, len(left_times), len(right_times))
    usable = np.flatnonzero((right_groups >= 0) & (right_times != NO_TIME))
    if not len(usable) or not len(left_times):
        return np.full(len(left_times), -1, dtype=np.int64)
    moments = np.unique(right_times[usable])
    width = len(moments) + 1
    # One number for group and time that sorts like the pair; ranks of times keep it far below 2**63.
    right_at = right_groups[usable] * width + np.searchsorted(moments, right_times[usable]) + 1
    order = np.argsort(right_at, kind="stable")
    left_at = left_groups * width + np.searchsorted(moments, left_times, side="right")
    slot = np.searchsorted(right_at[order], left_at, side="right") - 1
    candidate = usable[order[np.maximum(slot, 0)]]
    matches = (slot >= 0) & (left_groups >= 0) & (right_groups[candidate] == left_groups) & (left_times != NO_TIME)
    if max_age is not None:
        matches &= left_times - np.where(matches, right_times[candidate], left_times) <= max_age
    return np.where(matches, candidate, -1)


def _groups(
    left: Sequence[pa.Array[Any]], right: Sequence[pa.Array[Any]], left_rows: int, right_rows: int
) -> tuple[Positions, Positions]:
    """Equal combinations of values get equal numbers on both sides; -1 where a value is null."""
    groups = np.zeros(left_rows + right_rows, dtype=np.int64)
    null = np.zeros(left_rows + right_rows, dtype=np.bool_)
    for one, other in zip(left, right, strict=True):
        code, distinct = codes(pa.concat_arrays([one, other]))
        null |= code < 0
        # Numbered anew after each column, so that the numbers stay small however many columns there are.
        groups = np.unique(groups * (len(distinct) + 1) + code + 1, return_inverse=True)[1]
    groups = np.where(null, -1, groups)
    return groups[:left_rows], groups[left_rows:]
