"""New rows in a lake in memory: which count, and how much is read for it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.trainer.lake import START, Lake, events
from truekeep.api.data import Data
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LOG_ENV
from truekeep.monitor import newdata
from truekeep.monitor.newdata import STOP_AFTER, count


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def daily(days: int, rows: int = 144) -> dict[str, pa.Table]:
    """A file a day of so many rows, every ten minutes."""
    return {f"day-{day:03}.parquet": events(rows, seed=day, start=START + timedelta(days=day)) for day in range(days)}


def data(inline: bool = True, matures: int = 0) -> Data:
    label: dict[str, Any] = {"column": "late", "maturesAfterSeconds": matures}
    if not inline:
        label["source"] = {"s3": {"uri": "s3://lake/labels/"}}
    return Data.model_validate(
        {
            "source": {"s3": {"uri": "s3://lake/rows/"}},
            "timeColumn": "at",
            "key": "id",
            "label": label,
            "features": [{"name": "amount", "type": "Number"}],
        }
    )


def lake(tables: dict[str, pa.Table], labels: dict[str, pa.Table] | None = None) -> Lake:
    files = {f"rows/{name}": parquet(table) for name, table in tables.items()}
    files |= {f"labels/{name}": parquet(table) for name, table in (labels or {}).items()}
    return Lake(files)


def test_rows_that_are_newer_count() -> None:
    found = count(data(), START + timedelta(days=2), lake(daily(4)).open)
    assert found.rows == 2 * 144 - 1  # midnight itself is not newer
    assert found.newest == int((START + timedelta(days=4, minutes=-10)).timestamp() * 1e6)


def test_what_was_used_to_the_microsecond_is_not_new() -> None:
    last = START + timedelta(days=4, minutes=-10)
    assert count(data(), last, lake(daily(4)).open).rows == 0
    assert count(data(), last - timedelta(microseconds=1), lake(daily(4)).open).rows == 1


def test_a_label_that_is_not_final_does_not_count_yet() -> None:
    found = count(data(matures=86400), START + timedelta(days=2), lake(daily(4)).open)
    assert found.rows == 144 - 1 + 0  # of the last day none: the newest event is ten minutes before its end
    ripe = count(data(matures=0), START + timedelta(days=2), lake(daily(4)).open)
    assert ripe.rows - found.rows == 144


def test_rows_without_a_label_do_not_count() -> None:
    tables = daily(3)
    name = "day-002.parquet"
    labels = tables[name]["late"].to_pylist()
    labels[10:20] = [None] * 10
    tables[name] = tables[name].set_column(tables[name].column_names.index("late"), "late", pa.array(labels))
    assert count(data(), START + timedelta(days=2, minutes=-1), lake(tables).open).rows == 134


def test_labels_of_another_source_are_joined_by_key() -> None:
    tables = daily(4)
    known = tables["day-003.parquet"].select(["id", "late"]).slice(0, 100)
    old = tables["day-000.parquet"].select(["id", "late"])
    rows = {name: table.drop_columns(["late"]) for name, table in tables.items()}
    found = count(
        data(inline=False), START + timedelta(days=2), lake(rows, {"a.parquet": old, "b.parquet": known}).open
    )
    assert found.rows == 100


def test_a_look_costs_what_is_new() -> None:
    there = lake(daily(60, rows=10))
    found = count(data(), START + timedelta(days=57, minutes=-1), there.open)
    assert found.rows == 30
    assert len(there.opened["s3://lake/rows/"].fetched) == 3 + STOP_AFTER


def test_a_listing_tells_other_files() -> None:
    one, other = daily(2), daily(3)
    since = START + timedelta(days=9)
    assert count(data(), since, lake(one).open).listing == count(data(), since, lake(one).open).listing
    assert count(data(), since, lake(one).open).listing != count(data(), since, lake(other).open).listing


def test_a_file_that_can_not_be_read_is_named() -> None:
    there = lake(daily(2))
    there.files["rows/day-999.parquet"] = b"no parquet"
    found = count(data(), START, there.open)
    assert "day-999.parquet" in found.problem
    assert found.rows > 0


def test_an_empty_prefix_counts_nothing() -> None:
    assert count(data(), START, lake({}).open).rows == 0
    assert count(data(inline=False), START, lake({}).open).rows == 0


def test_the_pod_hands_its_count_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    request = newdata.CountRequest(
        namespace="shop", model="fraud", model_uid="u1", data=data(), since=datetime(2024, 1, 3, tzinfo=UTC)
    )
    there = lake(daily(4))
    monkeypatch.setenv(REQUEST_ENV, request.model_dump_json(by_alias=True))
    monkeypatch.setenv(TERMINATION_LOG_ENV, str(tmp_path / "log"))
    monkeypatch.setattr(newdata, "in_pod", there.open)
    assert newdata.main() == 0
    result = newdata.CountResult.model_validate_json((tmp_path / "log").read_text())
    assert (result.reason, result.rows, result.model_uid) == ("Counted", 287, "u1")
    assert result.since == request.since
    monkeypatch.setenv(REQUEST_ENV, "{}")
    assert newdata.main() == 3
