"""Event times and keys as clients write them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truekeep.server.identity import event_times, keys, microseconds
from truekeep.server.protocol import RequestError

NOON = 1_367_409_600_000_000  # 2013-05-01T12:00:00Z


@pytest.mark.parametrize(
    "value",
    [
        "2013-05-01T12:00:00Z",
        "2013-05-01 12:00",
        "2013-05-01T14:00:00+02:00",
        1_367_409_600,
        1_367_409_600.0,
        1_367_409_600_000,
        NOON,
        NOON * 1000,
    ],
)
def test_one_moment_in_all_its_forms(value: Any) -> None:
    assert microseconds(value) == NOON


def test_fractions_and_times_before_1970() -> None:
    assert microseconds("2013-05-01T12:00:00.000001Z") == NOON + 1
    assert microseconds(1_367_409_600.5) == NOON + 500_000
    assert microseconds("1969-12-31T23:59:59Z") == -1_000_000
    assert microseconds(-1) == -1_000_000
    assert microseconds(None) is None


@pytest.mark.parametrize(
    "value",
    ["", "noon", "2013-13-01", True, [1], {}, float("nan"), float("inf"), 1e30, 1e300, "1" * 10_000, "1311121000"],
)
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is no (ISO 8601 )?time") as caught:
        microseconds(value)
    assert len(str(caught.value)) < 150


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_survives(moment: datetime) -> None:
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    assert microseconds(moment.isoformat()) == expected


def test_refusals_name_tensor_and_row() -> None:
    with pytest.raises(RequestError, match=r"^tensor scheduled_at, row 1: 'noon' is no ISO 8601 time; send") as caught:
        event_times("scheduled_at", [None, "noon"])
    assert caught.value.status == 422
    with pytest.raises(RequestError, match=r"^tensor flight_id, row 0: a key is text or an integer, not \[1\]"):
        keys("flight_id", [[1]])
    with pytest.raises(RequestError, match=r"^tensor flight_id, row 0: the key has 513 characters, at most 512"):
        keys("flight_id", ["x" * 513])


def test_keys_are_text() -> None:
    assert keys("k", ["UA1", 7, 7.0, None]) == ["UA1", "7", "7", None]
