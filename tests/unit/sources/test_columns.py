"""What a raw column becomes, and what is said of values that it can't become."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from truekeep.sources.columns import NO_LABEL, NO_TIME, Bad, Kind, Values, concatenate, convert, empty, nulls, select

NAN = float("nan")
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
MICROS = int(NOON.timestamp()) * 1_000_000


def plain(values: Values) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()


def text(*values: str) -> pa.Array:
    return pa.array(values, pa.string())


@pytest.mark.parametrize(
    ("kind", "raw", "from_text", "expected"),
    [
        ("Number", pa.array([1, None, 3]), False, [1.0, NAN, 3.0]),
        ("Number", pa.array([1.5, NAN, None]), False, [1.5, NAN, NAN]),
        ("Number", pa.array([True, False, None]), False, [1.0, 0.0, NAN]),
        ("Number", pa.array([Decimal("1.25")]), False, [1.25]),
        ("Number", pa.array([1, 2, 1]).dictionary_encode(), False, [1.0, 2.0, 1.0]),
        ("Number", pa.nulls(2), False, [NAN, NAN]),
        ("Number", text("1", " 2.5 ", "-3e2", "", "NA", "nan"), True, [1.0, 2.5, -300.0, NAN, NAN, NAN]),
        ("Number", text("true", "FALSE", "1", ""), True, [1.0, 0.0, 1.0, NAN]),
        ("Category", text("a", "", "NA", " b"), True, ["a", None, "NA", " b"]),
        ("Category", text("a", ""), False, ["a", ""]),
        ("Category", pa.array([1, None, 20]), False, ["1", None, "20"]),
        ("Category", pa.array([1.0, None]), False, ["1", None]),
        ("Category", pa.array([True, False]), False, ["true", "false"]),
        ("Category", text("a", "b", "a").dictionary_encode(), False, ["a", "b", "a"]),
        ("Time", pa.array([NOON, None], pa.timestamp("ns", "UTC")), False, [MICROS, NO_TIME]),
        ("Time", pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")), False, [MICROS]),
        ("Time", pa.array([NOON], pa.timestamp("ms", "America/New_York")), False, [MICROS]),
        ("Time", pa.array([date(2024, 5, 1)]), False, [MICROS - 43_200_000_000]),
        ("Time", text("2024-05-01T12:00:00Z", ""), True, [MICROS, NO_TIME]),
        ("Time", text("2024-05-01 12:00:00"), True, [MICROS]),
        ("Time", text("2024-05-01T14:00:00+02:00", "2024-05-01T12:00:00"), True, [MICROS, MICROS]),
        ("Time", text("2024-05-01T12:00:00.000001999Z"), False, [MICROS + 1]),
        ("Time", pa.nulls(1), False, [NO_TIME]),
        ("Label", pa.array([0, 1, None]), False, [0, 1, NO_LABEL]),
        ("Label", pa.array([True, False, None]), False, [1, 0, NO_LABEL]),
        ("Label", pa.array([0.0, 1.0, NAN]), False, [0, 1, NO_LABEL]),
        ("Label", text("0", "1", "true", "False", "", "NA"), True, [0, 1, 1, 0, NO_LABEL, NO_LABEL]),
        ("Label", text("true", "0"), False, [1, 0]),
    ],
)
def test_good_values(kind: Kind, raw: pa.Array, from_text: bool, expected: list[Any]) -> None:
    values, bad = convert("c", raw, kind, from_text)
    assert bad is None
    np.testing.assert_array_equal(plain(values), expected)
    np.testing.assert_array_equal(nulls(values, kind), nulls(values, kind))


@pytest.mark.parametrize(
    ("kind", "raw", "from_text", "expected", "rows", "shown", "problem"),
    [
        (
            "Number",
            text("1", "x", "2", "1_0", "y"),
            True,
            [1, NAN, 2, NAN, NAN],
            [1, 3, 4],
            ["x", "1_0", "y"],
            "no number",
        ),
        ("Number", pa.array([1.0, np.inf, -np.inf]), False, [1, NAN, NAN], [1, 2], ["inf", "-inf"], "not finite"),
        ("Number", text("1", "inf"), True, [1, NAN], [1], ["inf"], "not finite"),
        ("Time", text("2024-05-01T12:00:00Z", "yesterday"), True, [MICROS, NO_TIME], [1], ["yesterday"], "no time"),
        ("Label", text("0", "yes", "1"), True, [0, NO_LABEL, 1], [1], ["yes"], "no label"),
        ("Label", pa.array([0, 2, 1]), False, [0, NO_LABEL, 1], [1], ["2"], "no label"),
        ("Label", pa.array([0.5, 1.0]), False, [NO_LABEL, 1], [0], ["0.5"], "no label"),
    ],
)
def test_bad_values_are_named_by_their_rows(
    kind: Kind, raw: pa.Array, from_text: bool, expected: list[Any], rows: list[int], shown: list[str], problem: str
) -> None:
    values, bad = convert("c", raw, kind, from_text)
    np.testing.assert_array_equal(plain(values), expected)
    assert isinstance(bad, Bad)
    assert bad.positions is not None
    assert bad.positions.tolist() == rows
    assert list(bad.values) == shown
    assert problem in bad.problem
    assert bad.remedy


@pytest.mark.parametrize(
    ("kind", "raw", "problem"),
    [
        ("Number", text("1", "2"), "must be numeric"),
        ("Number", pa.array([[1], [2]]), "must be numeric"),
        ("Category", pa.array([1.5, 2.0]), "not 1.5"),
        ("Category", pa.array([NOON]), "must be text"),
        ("Time", pa.array([1714564800]), "is of type int64, which is no time"),
        ("Label", pa.array([[0], [1]]), "which is no label"),
    ],
)
def test_a_column_of_a_wrong_type_is_refused_as_a_whole(kind: Kind, raw: pa.Array, problem: str) -> None:
    values, bad = convert("c", raw, kind, from_text=False)
    assert nulls(values, kind).all()
    assert len(values) == len(raw)
    assert bad is not None
    assert bad.positions is None
    assert problem in bad.problem


@pytest.mark.parametrize("kind", ["Number", "Category", "Time", "Label"])
def test_empty_columns_are_null(kind: Kind) -> None:
    assert nulls(empty(kind, 3), kind).tolist() == [True, True, True]
    assert len(concatenate([], kind)) == 0
    assert len(concatenate([empty(kind, 2), empty(kind, 1)], kind)) == 3


def test_rows_are_selected_by_mask_and_by_position() -> None:
    numbers, names = np.array([1.0, 2.0, 3.0]), text("a", "b", "c")
    mask = np.array([True, False, True])
    assert plain(select(numbers, mask)) == [1, 3]
    assert plain(select(names, mask)) == ["a", "c"]
    assert plain(select(names, np.array([2, -1, 0]))) == ["c", None, "a"]


def test_offsets_are_honoured() -> None:
    zone = timezone(timedelta(hours=-5))
    values, _ = convert("c", text(NOON.astimezone(zone).isoformat()), "Time", from_text=True)
    assert plain(values) == [MICROS]


@pytest.mark.parametrize("values", [np.array([1.5, np.nan, 3.0]), pa.array(["a", None, "c"])])
def test_all_rows_in_their_order_are_the_values_themselves(values: Any) -> None:
    assert select(values, np.array([True, True, True])) is values
    assert select(values, np.array([0, 1, 2])) is values
    for some in ([True, False, True], [0, 2, 1], [0, 1, 1], [0, 1]):
        picked = select(values, np.array(some))
        assert picked is not values
        expected = [values[row] for row in (np.flatnonzero(some) if some[0] is True else some)]
        assert str(list(picked)) == str(expected)
    nothing = values[:0]
    assert len(select(nothing, np.array([], dtype=np.int64))) == 0
