"""Times: text, timestamps and microseconds are one number, in bulk and for a request."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.contract.artifact import SignatureFeature
from truekeep.features import times
from truekeep.features.encode import Encoder, FeatureError, matrix
from truekeep.sources import columns

AT = [SignatureFeature(name="at", type="Time")]
SECOND = 1_000_000


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1800, 1, 1), max_value=datetime(2250, 1, 1)))
def test_a_request_and_a_table_give_the_same_number(moment: datetime) -> None:
    whole = (moment - times.EPOCH) // (moment.resolution)
    text = times.to_text(whole)
    assert times.from_text(text) == whole
    bulk = [
        pa.array([moment], pa.timestamp("us", "UTC")),
        pa.array([text]),
        np.array([whole], dtype=np.int64),
        np.array([moment.replace(tzinfo=None)], dtype="datetime64[us]"),
    ]
    for column in bulk:
        assert matrix({"at": column}, AT).tolist() == [[float(whole)]]
    read, bad = columns.convert("at", pa.array([text]), "Time", True)
    assert bad is None
    assert matrix({"at": read}, AT).tolist() == [[float(whole)]]
    for value in (text, whole, float(whole), np.int64(whole)):
        assert Encoder(AT).encode({"at": [value]}, 1).tolist() == [[float(whole)]]


def test_nulls_are_nan() -> None:
    for column in (
        pa.array([None, 0], pa.timestamp("us", "UTC")),
        np.array([times.NO_TIME, 0], dtype=np.int64),
        pa.array([None, "1970-01-01"]),
    ):
        assert np.array_equal(matrix({"at": column}, AT), [[np.nan], [0.0]], equal_nan=True)
    assert np.array_equal(Encoder(AT).encode({"at": [None, 0]}, 2), [[np.nan], [0.0]], equal_nan=True)
    assert np.isnan(matrix({"at": pa.nulls(1)}, AT)).all()
    with pytest.raises(FeatureError, match="at: row 0: null is refused, because the Model declares nulls: Refuse"):
        Encoder([AT[0].model_copy(update={"nulls": "Refuse"})]).encode({"at": [None]}, 1)


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(FeatureError, match="at: is of type double, a Time must be timestamps or ISO 8601 text"):
        matrix({"at": pa.array([1.5])}, AT)
    with pytest.raises(FeatureError, match="at: 'soon' is no ISO 8601 time; send for example 2013-05-01T12:00:00Z"):
        matrix({"at": pa.array(["soon"])}, AT)


def test_other_offsets_and_units_are_the_same_moment() -> None:
    assert times.from_text("2024-03-31T03:00:00+02:00") == times.from_text("2024-03-31T01:00:00Z")
    assert times.from_text("2024-03-31 01:00") == times.from_text("2024-03-31T01:00:00")
    seconds = pa.array([1_700_000_000], pa.timestamp("s"))
    assert matrix({"at": seconds}, AT).tolist() == [[1_700_000_000.0 * SECOND]]
    assert matrix({"at": pa.array([1], pa.date32())}, AT).tolist() == [[86_400.0 * SECOND]]


def test_of_a_profile_only_whether_it_is_there() -> None:
    column = np.array([5, times.NO_TIME, 7], dtype=np.int64)
    assert times.presence(column).to_pylist() == [0.0, None, 0.0]


def test_a_number_beside_a_time_is_still_judged() -> None:
    encoder = Encoder([AT[0], SignatureFeature(name="x", type="Number")])
    with pytest.raises(FeatureError, match="x: row 1: inf is not finite"):
        encoder.encode({"at": ["2024-01-01", None], "x": [1.0, float("inf")]}, 2)
    with pytest.raises(FeatureError, match="x: row 0: an integer of 2000 bits is too large"):
        encoder.encode({"at": ["2024-01-01"], "x": [2**2000 - 1]}, 1)
