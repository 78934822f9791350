from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.unit.cli.conftest import BEGINS, EXTRACT
from truekeep.cli.examples import flights, world


@pytest.fixture(scope="module")
def tables() -> dict[str, list[dict[str, object]]]:
    return {name: table.to_pylist() for name, table in flights.tables(EXTRACT).items()}


def one(rows: list[dict[str, object]], **equal: object) -> dict[str, object]:
    (row,) = [row for row in rows if all(row[name] == value for name, value in equal.items())]
    return row


def test_a_departure_says_what_is_known_when_it_is_due_and_no_more(tables: dict[str, list[dict[str, object]]]) -> None:
    # JetBlue 30 was due at 22:50 of Tuesday, 26 February, which is the 27th in UTC, and left 76 minutes late.
    assert one(tables["flights"], flight_id="20130226-B630-JFK") == {
        "flight_id": "20130226-B630-JFK",
        "scheduled_at": datetime(2013, 2, 27, 3, 50, tzinfo=UTC),
        "hour": 22,
        "weekday": 2,
        "carrier": "B6",
        "origin": "JFK",
        "dest": "ROC",
        "distance": 264,
    }


def test_a_label_is_known_when_the_flight_has_landed(tables: dict[str, list[dict[str, object]]]) -> None:
    # It left at 00:06 and landed at 01:09, New York time: 63 minutes, within one zone.
    row = one(tables["arrivals"], flight_id="20130226-B630-JFK")
    assert row["landed_at"] == datetime(2013, 2, 27, 6, 9, tzinfo=UTC)
    assert row["late"] == 1


def test_clocks_of_other_zones_are_accounted_for(tables: dict[str, list[dict[str, object]]]) -> None:
    # United 194 left Newark at 06:04 and landed in Los Angeles at 09:03 there, which is 17:03 UTC.
    row = one(tables["arrivals"], flight_id="20130226-UA194-EWR")
    assert row["landed_at"] == datetime(2013, 2, 26, 17, 3, tzinfo=UTC)
    assert row["late"] == 0


def test_zones_shift_with_the_date_and_the_missing_airports_are_caribbean() -> None:
    zones = {"PHX": "America/Phoenix"}
    shift = flights.zone_shift([date(2013, 2, 1), date(2013, 7, 1), date(2013, 2, 1)], ["PHX", "PHX", "SJU"], zones)
    assert shift.tolist() == [120, 180, -60]


def test_cancelled_and_diverted_flights_stay_without_label(tables: dict[str, list[dict[str, object]]]) -> None:
    labelled = {row["flight_id"] for row in tables["arrivals"]}
    known = {row["flight_id"] for row in tables["flights"]}
    assert labelled < known
    assert len(known - labelled) >= 6


def test_no_flight_lands_before_it_left(tables: dict[str, list[dict[str, object]]]) -> None:
    due = {row["flight_id"]: row["scheduled_at"] for row in tables["flights"]}
    for row in tables["arrivals"]:
        under_way = row["landed_at"] - due[row["flight_id"]]  # type: ignore[operator]
        assert timedelta(minutes=10) < under_way < timedelta(hours=30), row


def test_the_history_ends_where_the_future_begins(prepared: Path) -> None:
    for name, column in world.FLIGHT_DELAY.times().items():
        past = [pq.read_table(path)[column] for path in sorted((prepared / "lake" / name).iterdir())]
        future = [pq.read_table(path)[column] for path in sorted((prepared / "replay/flight-delay" / name).iterdir())]
        assert max(pc.max(times).as_py() for times in past) < BEGINS
        assert min(pc.min(times).as_py() for times in future) >= BEGINS


def test_nothing_is_lost_between_history_and_future(prepared: Path, tables: dict[str, list[dict[str, object]]]) -> None:
    for name in world.FLIGHT_DELAY.times():
        paths = [*(prepared / "lake" / name).iterdir(), *(prepared / "replay/flight-delay" / name).iterdir()]
        assert sum(pq.read_table(path).num_rows for path in paths) == len(tables[name])


def test_a_flight_of_february_that_lands_in_march_is_labelled_in_march(prepared: Path) -> None:
    past = pq.read_table(prepared / "lake/flights")["flight_id"].to_pylist()
    future = pq.read_table(prepared / "replay/flight-delay/arrivals")["flight_id"].to_pylist()
    assert set(past) & set(future)


def test_the_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "PACKAGE", "no_such_package_here")
    with pytest.raises(FileNotFoundError, match="no_such_package_here is not installed; `make venv`"):
        flights.package_folder()
