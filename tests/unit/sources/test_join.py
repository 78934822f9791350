"""Joins: by key the last one, as of a time never one from the future."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.sources.columns import NO_TIME
from truekeep.sources.join import Among, as_of, by_key, last_of_each


def strings(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def times(*values: int | None) -> np.ndarray:
    return np.array([NO_TIME if value is None else value for value in values], dtype=np.int64)


def test_the_last_row_of_a_key_is_kept() -> None:
    keep, duplicates = last_of_each(strings("a", "b", "a", None, "c", None, "a"))
    assert keep.tolist() == [False, True, False, True, True, True, True]
    assert duplicates == 3


def test_no_keys_no_duplicates() -> None:
    keep, duplicates = last_of_each(strings())
    assert len(keep) == 0
    assert duplicates == 0


def test_by_key_takes_the_last_match() -> None:
    found = by_key(strings("a", "x", None, "b"), strings("b", "a", None, "a"))
    assert found.tolist() == [3, -1, -1, 0]
    assert by_key(strings("a"), strings()).tolist() == [-1]
    assert by_key(strings(), strings("a")).tolist() == []


@pytest.mark.parametrize(
    ("name", "left", "right", "max_age", "expected"),
    [
        ("the newest that is not newer", [10, 20, 25], [5, 20, 30], None, [0, 1, 1]),
        ("trap: only the future knows it", [10], [11], None, [-1]),
        ("trap: one microsecond later is the future", [10], [9, 11], None, [0]),
        ("at the very same time it was known", [10], [10], None, [0]),
        ("of equal times the last", [10], [10, 10, 10], None, [2]),
        ("unsorted", [10, 20], [20, 5, 10], None, [2, 0]),
        ("too old", [10, 20], [9], 5, [0, -1]),
        ("exactly as old as allowed", [14], [9], 5, [0]),
        ("no time on the left", [None, 10], [5], None, [-1, 0]),
        ("no time on the right", [10], [None, 5], None, [1]),
        ("nothing to join", [10], [], None, [-1]),
    ],
)
def test_as_of_time(
    name: str, left: list[int | None], right: list[int | None], max_age: int | None, expected: list[int]
) -> None:
    assert as_of(times(*left), [], times(*right), [], max_age).tolist() == expected, name


def test_as_of_with_equal_columns() -> None:
    found = as_of(
        times(10, 10, 10, 10),
        [strings("EWR", "JFK", None, "LGA"), strings("x", "x", "x", "x")],
        times(9, 8, 7, 10, 10),
        [strings("EWR", "EWR", "JFK", None, "JFK"), strings("y", "x", "x", "x", "y")],
        None,
    )
    assert found.tolist() == [1, 2, -1, -1]


SIDE = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 12)), st.sampled_from(["p", "q", None])), max_size=12)


@given(SIDE, SIDE, st.one_of(st.none(), st.integers(0, 6)))
def test_as_of_does_what_it_says(
    left: list[tuple[int | None, str | None]], right: list[tuple[int | None, str | None]], max_age: int | None
) -> None:
    """Against the definition, row by row."""
    found = as_of(
        times(*(time for time, _ in left)),
        [strings(*(group for _, group in left))],
        times(*(time for time, _ in right)),
        [strings(*(group for _, group in right))],
        max_age,
    )
    for (time, group), position in zip(left, found, strict=True):
        best, best_time = -1, -1
        for candidate, (known, other) in enumerate(right):
            if time is None or known is None or group is None or other != group or known > time:
                continue
            if (max_age is None or time - known <= max_age) and known >= best_time:
                best, best_time = candidate, known
        assert position == best


def test_rows_of_file_after_file_that_may_have_a_key() -> None:
    """By range at first; once as many as twice the keys are held, by the keys themselves."""
    among = Among(pa.array(["k10", "k12", None, "k19"]))
    assert among(pa.array(["k05", "k10", "k11", None, "k20"])).tolist() == [False, True, True, False, False]
    assert among(pa.array(["k13"] * 6)).tolist() == [True] * 6  # none is a key, but there is room for six
    assert among(pa.array(["k13", "k12", "k19"])).tolist() == [False, True, True]
    assert not Among(pa.array([], pa.string()))(pa.array(["k1", None])).any()
    assert not Among(pa.nulls(2, pa.string()))(pa.array(["k1", None])).any()
