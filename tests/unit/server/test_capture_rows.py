"""The file holds what was asked and answered, whatever sizes the requests had."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.server.conftest import FEATURES, NAMES, ROWS
from truekeep.contract.hashing import hashed
from truekeep.features.encode import Encoder
from truekeep.server.capture_rows import Files, Rows

ENCODER = Encoder(FEATURES)
STRANGE = {NAMES.index("carrier"): ROWS["carrier"], NAMES.index("gate"): ROWS["gate"]}


def part(*rows: int) -> dict[str, Any]:
    """These of the five rows, as a request."""
    columns = {name: [ROWS[name][row] for row in rows] for name in NAMES}
    return {
        "matrix": ENCODER.encode(columns, len(rows)),
        "unknown": {position: [values[row] for row in rows] for position, values in STRANGE.items()},
        "probability": np.array([row / 10 for row in rows]),
    }


def read(content: bytes) -> dict[str, list[Any]]:
    table = pq.read_table(io.BytesIO(content))
    kinds = {str(field.type) for field in table.schema}
    assert kinds <= {"string", "int32", "int64", "double", "timestamp[us, tz=UTC]"}  # no dictionaries
    rows: dict[str, list[Any]] = table.to_pydict()
    return rows


def test_requests_of_all_sizes_and_kinds() -> None:
    batch = Rows()
    batch.add("a", **part(0, 1, 2), received=1_000_000, size=3)
    batch.add("b", **part(4), received=2_000_000, keys=["k"], event_times=[-5], size=2)
    batch.add("c", **part(3, 4), received=3_000_000, event_times=[None, 4_000_001], size=1)
    assert (batch.rows, batch.size) == (6, 6)
    content, first, last = Files(FEATURES, 3, 0.35).file(batch)
    assert (first, last) == (-5, 4_000_001)
    rows = read(content)
    order = [0, 1, 2, 4, 3, 4]
    for name in NAMES:
        assert rows[name] == [ROWS[name][row] for row in order], name
    assert rows["truekeep.request_id"] == list("aaabcc")
    assert rows["truekeep.row"] == [0, 1, 2, 0, 0, 1]
    assert rows["truekeep.revision"] == [3] * 6
    assert [moment.timestamp() for moment in rows["truekeep.received_at"]] == [1, 1, 1, 2, 3, 3]
    assert [moment and moment.microsecond for moment in rows["truekeep.event_time"]] == [
        None, None, None, 999_995, None, 1,
    ]  # fmt: skip
    assert rows["truekeep.key"] == [None, None, None, "k", None, None]
    assert rows["truekeep.probability"] == [0.0, 0.1, 0.2, 0.4, 0.3, 0.4]
    assert rows["truekeep.prediction"] == [0, 0, 0, 1, 0, 1]
    assert rows["truekeep.cut_off"] == [0.35] * 6


def test_one_row_each() -> None:
    batch = Rows()
    for row in range(5):
        batch.add(str(row), **part(row), received=row)
    rows = read(Files(FEATURES, 1, 0.5).file(batch)[0])
    assert {name: rows[name] for name in NAMES} == ROWS
    assert rows["truekeep.row"] == [0] * 5


@pytest.mark.parametrize("value", ["ZZ", 7, 7.0, True, np.int64(7)])
def test_the_text_of_a_category_that_training_has_never_seen(value: Any) -> None:
    columns = {**{name: [ROWS[name][0]] for name in NAMES}, "carrier": [value]}
    batch = Rows()
    matrix = ENCODER.encode({**columns, "carrier": ["never seen"]}, 1)
    batch.add("a", matrix, np.array([0.5]), 0, unknown={NAMES.index("carrier"): [value]})
    text = {"ZZ": "ZZ", True: "true"}.get(value, "7") if not isinstance(value, np.integer) else "7"
    assert read(Files(FEATURES, 1, 0.5).file(batch)[0])["carrier"] == [text]


class Hash:
    def all(self, values: Any) -> list[str | None]:
        return [None if value is None else hashed(b"k" * 16, "x", value) for value in values]


def test_hashes_of_known_and_unknown_categories_of_numbers_and_keys() -> None:
    batch = Rows()
    batch.add("a", **part(0, 1, 2, 3, 4), received=0, keys=["p", "q", None, "p", "r"])
    files = Files(FEATURES, 1, 0.5, key_column="id", hashes={"hour": Hash(), "carrier": Hash(), "id": Hash()})
    rows = read(files.file(batch)[0])
    assert rows["carrier"] == Hash().all(ROWS["carrier"])
    assert rows["truekeep.key"] == Hash().all(["p", "q", None, "p", "r"])
    assert rows["hour"] == Hash().all(["7", "23.5", None, "0", "12"])
    assert pa.array(rows["distance"]).type == pa.float64()
