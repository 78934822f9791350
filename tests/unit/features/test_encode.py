"""The encoding: bulk and request agree, and what cannot be encoded is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.contract.artifact import SignatureFeature
from truekeep.features.encode import Encoder, FeatureError, category_text, codes, matrix, numbers, texts

HOUR = SignatureFeature(name="hour", type="Number")
CARRIER = SignatureFeature(name="carrier", type="Category", categories=["AA", "B6", "UA"])
STRICT = SignatureFeature(name="strict", type="Number", nulls="Refuse")
CODE = SignatureFeature(name="code", type="Category", categories=["1", "10", "2"], nulls="Refuse")
NAN = float("nan")


def same(got: np.ndarray, expected: list[Any]) -> None:
    np.testing.assert_array_equal(got, np.array(expected, dtype=float))
    assert got.dtype == np.float64


@pytest.mark.parametrize(
    "column",
    [
        [1, None, 2.5],
        np.array([1, np.nan, 2.5]),
        np.array([1, np.nan, 2.5], dtype=np.float16),
        np.array([1, None, 2.5], dtype=object),
        pa.array([1, None, 2.5], type=pa.float32()),
        pa.array([1.0, NAN, 2.5]),
        pa.array([1.0, None, 2.5]).dictionary_encode(),
        pa.chunked_array([pa.array([1.0, None]), pa.array([2.5])]),
    ],
)
def test_a_number_is_its_value_and_null_is_nan(column: Any) -> None:
    same(numbers("hour", column), [1, NAN, 2.5])


@pytest.mark.parametrize("column", [[True, False, None], pa.array([1, 0, None], pa.int8()), pa.array([1, 0, None])])
def test_booleans_and_integers_are_numbers(column: Any) -> None:
    same(numbers("hour", column), [1, 0, NAN])


def test_large_integers_round_as_floats_do() -> None:
    same(numbers("hour", pa.array([2**53 + 1, 5])), [float(2**53 + 1), 5])


def test_a_column_of_nulls_is_either() -> None:
    same(numbers("hour", [None, None]), [NAN, NAN])
    same(codes("carrier", [None, None], ["AA"]), [NAN, NAN])


@pytest.mark.parametrize("column", [["1", "2"], pa.array(["1"]), pa.array([0], pa.timestamp("us")), [b"1"]])
def test_text_and_times_are_no_numbers(column: Any) -> None:
    with pytest.raises(FeatureError, match=r"^hour: .*must be numeric") as caught:
        numbers("hour", column)
    assert caught.value.name == "hour"


@pytest.mark.parametrize(
    "column",
    [
        ["UA", "ZZ", None, "AA"],
        np.array(["UA", "ZZ", None, "AA"], dtype=object),
        pa.array(["UA", "ZZ", None, "AA"]),
        pa.array(["UA", "ZZ", None, "AA"], pa.large_string()),
        pa.array(["UA", "ZZ", None, "AA"]).dictionary_encode(),
        pa.chunked_array([pa.array(["UA", "ZZ"]).dictionary_encode(), pa.array([None, "AA"]).dictionary_encode()]),
        [b"UA", b"ZZ", None, b"AA"],
    ],
)
def test_a_category_is_its_position_unknown_is_minus_one_null_is_nan(column: Any) -> None:
    same(codes("carrier", column, ["AA", "B6", "UA"]), [2, -1, NAN, 0])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 10, None]), ["1", "10", None]),
        (pa.array([1.0, 10.0, NAN]), ["1", "10", None]),
        (pa.array([-0.0, 2.0, None]), ["0", "2", None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (np.array([1.0, 10.0, np.nan]), ["1", "10", None]),
        (np.array([1, 10]), ["1", "10"]),
        (pa.chunked_array([], type=pa.string()), []),
    ],
)
def test_texts_of_codes(column: Any, expected: list[str | None]) -> None:
    assert texts("code", column).to_pylist() == expected
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column.tolist()
    assert [category_text(value) for value in values] == expected


@pytest.mark.parametrize(
    "column", [[1.5], [float("inf")], [1e300], pa.array([0], pa.timestamp("us")), [[1]], [b"\xff"], ["a", 1]]
)
def test_what_has_no_category_text_is_refused_by_name(column: Any) -> None:
    with pytest.raises(FeatureError, match=r"^code: "):
        texts("code", column)


def test_matrix_is_in_signature_order_and_ignores_further_columns() -> None:
    table = pa.table({"label": [1, 0], "carrier": ["B6", None], "hour": [7, 8]})
    same(matrix({name: table[name] for name in table.column_names}, [HOUR, CARRIER]), [[7, 1], [8, NAN]])


def test_matrix_names_what_is_missing_or_too_short() -> None:
    with pytest.raises(FeatureError, match=r"^carrier: the column is missing; give it as a Category"):
        matrix({"hour": [1]}, [HOUR, CARRIER])
    with pytest.raises(FeatureError, match=r"^carrier: has 2 rows, but hour has 1"):
        matrix({"hour": [1], "carrier": ["AA", "AA"]}, [HOUR, CARRIER])


def test_matrix_of_no_rows() -> None:
    assert matrix({"hour": pa.array([], pa.float64()), "carrier": []}, [HOUR, CARRIER]).shape == (0, 2)


number_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False)
)
category_values = st.one_of(st.none(), st.sampled_from(["AA", "B6", "UA", "true", "1"]), st.text(max_size=5))


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False) | st.none(), category_values), max_size=30))
def test_request_and_bulk_give_the_same_numbers(rows: list[tuple[float | None, str | None]]) -> None:
    columns = {"hour": [row[0] for row in rows], "carrier": [row[1] for row in rows]}
    typed = {"hour": pa.array(columns["hour"], pa.float64()), "carrier": pa.array(columns["carrier"], pa.string())}
    request = Encoder([HOUR, CARRIER]).encode(columns, len(rows))
    np.testing.assert_array_equal(request, matrix(typed, [HOUR, CARRIER]))


@given(st.lists(number_values, max_size=10))
def test_any_json_number_is_encoded(values: list[Any]) -> None:
    got = Encoder([HOUR]).encode({"hour": values}, len(values))
    same(got[:, 0], [NAN if value is None else float(value) for value in values])


@given(st.lists(st.integers(-3, 12) | st.none(), max_size=10))
def test_codes_as_integers_floats_or_text_are_the_same_category(values: list[int | None]) -> None:
    feature = CODE.model_copy(update={"nulls": "Allow"})
    encoder = Encoder([feature])
    expected = encoder.encode({"code": values}, len(values))
    for form in (str, float):
        other = encoder.encode({"code": [None if v is None else form(v) for v in values]}, len(values))
        np.testing.assert_array_equal(other, expected)
    bulk = matrix({"code": pa.array(values, pa.int64())}, [feature])
    np.testing.assert_array_equal(bulk, expected)
    floats = matrix({"code": pa.array(values, pa.int64()).cast(pa.float64())}, [feature])
    np.testing.assert_array_equal(floats, expected)


GOOD = {"hour": [7], "carrier": ["AA"], "strict": [1], "code": ["10"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hour": ["7"]}, r"^hour: row 0: a Number must be a number or null, not '7'"),
        ({"hour": [[7]]}, r"^hour: row 0: a Number must be"),
        ({"hour": [NAN]}, r"^hour: row 0: nan is not finite; send null"),
        ({"hour": [2**1024]}, r"^hour: row 0: an integer of 1025 bits is too large"),
        ({"hour": [float("-inf")]}, r"^hour: row 0: -inf is not finite"),
        ({"hour": [10**400]}, r"^hour: row 0: an integer of 1329 bits is too large"),
        ({"strict": [None]}, r"^strict: row 0: null is refused, because the Model declares nulls: Refuse"),
        ({"code": [None]}, r"^code: row 0: null is refused"),
        ({"carrier": [1.5]}, r"^carrier: row 0: a Category must be text"),
        ({"carrier": [NAN]}, r"^carrier: row 0: NaN is no category"),
        ({"carrier": [["AA"]]}, r"^carrier: row 0: a Category must be"),
        ({"carrier": [b"\xff"]}, r"^carrier: row 0: "),
        ({"carrier": ["AA", "B6"]}, r"^carrier: has 2 values, but the first input has 1"),
        ({"carrier": None}, r"^carrier: the input is missing; send a tensor of 1 values"),
        ({"airline": ["AA"]}, r"^airline: the model has no such input; it takes hour, carrier, strict, code$"),
    ],
)
def test_a_request_that_cannot_be_encoded_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    columns = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    with pytest.raises(FeatureError, match=message):
        Encoder([HOUR, CARRIER, STRICT, CODE]).encode(columns, 1)


def test_an_input_that_replaces_another_is_named_too() -> None:
    with pytest.raises(FeatureError, match=r"^airline: the model has no such input"):
        Encoder([CARRIER]).encode({"airline": ["AA"]}, 1)


def test_the_good_request_passes() -> None:
    same(Encoder([HOUR, CARRIER, STRICT, CODE]).encode(GOOD, 1), [[7, 0, 1, 1]])


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.sampled_from(["AA", "UA", "ZZ"]),
            st.none() | st.sampled_from([1, 2, 10, 77]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_arrays_and_lists_and_rows_alone_give_the_same(rows: list[tuple[Any, Any, Any]]) -> None:
    features = [CARRIER, HOUR, CODE.model_copy(update={"nulls": "Allow"})]
    hours, carriers, gates = map(list, zip(*rows, strict=True))
    lists = {"hour": hours, "carrier": carriers, "code": gates}
    arrays = {**lists, "hour": np.array(hours, dtype=np.float64), "code": np.array(gates, dtype=np.float64)}
    encoder = Encoder(features)
    whole = encoder.encode(lists, len(rows))
    np.testing.assert_array_equal(encoder.encode(arrays, len(rows)), whole)
    alone = [encoder.encode({name: [values[row]] for name, values in lists.items()}, 1)[0] for row in range(len(rows))]
    np.testing.assert_array_equal(alone, whole)


def test_an_array_is_judged_as_a_list_is() -> None:
    encoder = Encoder([HOUR, STRICT])
    with pytest.raises(FeatureError, match="hour: row 1: inf is not finite"):
        encoder.encode({"hour": np.array([1, np.inf, 2]), "strict": [1, 2, 3]}, 3)
    with pytest.raises(FeatureError, match="strict: row 2: NaN is refused, because the Model declares nulls: Refuse"):
        encoder.encode({"hour": [1, 2, 3], "strict": np.array([1, 2, NAN], dtype=np.float32)}, 3)
    with pytest.raises(FeatureError, match="carrier: row 0: a Category must be text"):
        Encoder([CARRIER]).encode({"carrier": np.array([1.5])}, 1)
    same(encoder.encode({"hour": np.array([True, False]), "strict": np.array([1, 2], np.uint8)}, 2), [[1, 1], [0, 2]])
