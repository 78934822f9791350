"""The buffer: bounded whatever the store does, and everything that it took is written once the store takes it."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import Versitygw, free_port
from tests.unit.server.conftest import FEATURES, NAMES, ROWS
from truekeep.api import capture as api
from truekeep.api.common import S3Location
from truekeep.contract.hashing import hashed
from truekeep.contract.sampling import sampled
from truekeep.features.encode import Encoder
from truekeep.server import capture as module
from truekeep.server.capture import Capture, Source
from truekeep.server.limits import Limits
from truekeep.server.metrics import Metrics
from truekeep.storage.errors import StoreUnreachable
from truekeep.storage.s3 import Bucket

SOURCE = Source(
    namespace="demo", model="flight-delay", revision=3, pod="pod-1", cut_off=0.4, features=tuple(FEATURES),
    key_column="flight_id", artifact="sha256:" + "ab" * 32, run="flight-delay-3",
    format="onnx",
)  # fmt: skip
KEY = b"0123456789abcdef"
MATRIX = Encoder(FEATURES).encode(ROWS, 5)


def served(identifier: str = "x", **changes: Any) -> dict[str, Any]:
    """A request of five rows."""
    values: dict[str, Any] = {
        "request_id": identifier,
        "matrix": MATRIX,
        "probability": np.linspace(0, 1, 5),
        "received": 1_700_000_000_000_000,
        "event_times": None,
        "keys": None,
        "unknown": {NAMES.index("carrier"): ROWS["carrier"], NAMES.index("gate"): ROWS["gate"]},
        "size": 500,
    }
    return {**values, **changes}


@pytest.fixture
def make(versitygw: Versitygw) -> Iterator[Callable[..., tuple[Capture, Metrics]]]:
    """Captures that are closed with the test."""
    made: list[Capture] = []

    def make(
        location: S3Location | None = None,
        limits: Limits | None = None,
        open_bucket: Any = None,
        hash_key: bytes | None = None,
        **settings: Any,
    ) -> tuple[Capture, Metrics]:
        metrics = Metrics()
        spec = api.Capture(s3=location or versitygw.location(), **{"flush_seconds": 3600, **settings})
        made.append(Capture(spec, SOURCE, limits or Limits(), metrics, open_bucket, hash_key=hash_key))
        made[-1].start()
        return made[-1], metrics

    yield make
    for one in made:
        one.close(0)


def count(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"truekeep_server_capture_{name}_total") or 0.0


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.01)


def rows_in(location: S3Location) -> list[str]:
    """The request ids of all rows in the store, file after file."""
    bucket = Bucket.open(location)
    ids: list[str] = []
    for info in bucket.list():
        ids += pq.read_table(io.BytesIO(bucket.get(info.key)))["truekeep.request_id"].to_pylist()
    return ids


def test_a_flush_comes_with_time_and_with_rows(make: Any, versitygw: Versitygw) -> None:
    for settings in ({"flush_seconds": 1}, {"limits": Limits(capture_flush_rows=20)}):
        location = versitygw.location()
        capture, metrics = make(location, **settings)
        for number in range(4):
            capture.offer(**served(str(number)))
        until(lambda metrics=metrics: count(metrics, "rows") == 20)
        assert sorted(rows_in(location)) == [str(number) for number in range(4) for _ in range(5)]
        assert capture.buffered_rows() == 0
        assert count(metrics, "dropped_rows") == 0


def test_files_are_bounded_and_numbered(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    capture, _ = make(location, limits=Limits(capture_flush_rows=10))
    for number in range(5):
        capture.offer(**served(str(number)))
    capture.close(30)
    bucket = Bucket.open(location)
    keys = sorted(info.key for info in bucket.list())
    assert [key.rsplit("_", 1)[1] for key in keys] == [f"{i:06d}.parquet" for i in range(len(keys))]
    assert [pq.read_metadata(io.BytesIO(bucket.get(key))).num_rows for key in keys] == [10, 10, 5]
    assert keys[0].startswith("demo/flight-delay/revision=3/date=2023-11-14/hour=22/1700000000000_1700000000000_pod-1-")


def test_a_store_that_is_down_fills_the_buffer_and_no_more(make: Any, versitygw: Versitygw) -> None:
    nobody = versitygw.location().model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    capture, metrics = make(nobody, limits=Limits(capture_rows=100, capture_flush_rows=20))
    for number in range(1000):
        capture.offer(**served(str(number)))
        assert capture.buffered_rows() <= 100
    assert count(metrics, "dropped_rows") == 4900
    assert capture.buffered_rows() == 100
    until(lambda: count(metrics, "write_failures") >= 1)
    capture.close(10)
    assert count(metrics, "dropped_rows") == 5000
    assert count(metrics, "rows") == 0


def test_bytes_are_bounded_too(make: Any) -> None:
    capture, metrics = make(limits=Limits(capture_bytes=1200))
    for _ in range(3):
        capture.offer(**served())
    assert (capture.buffered_rows(), count(metrics, "dropped_rows")) == (10, 5)


def test_a_store_that_stalls_holds_up_nobody(make: Any, versitygw: Versitygw) -> None:
    """A store that takes connections and never says anything: each offer returns although a write hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stalled = versitygw.location().model_copy(update={"endpoint": address})
        capture, metrics = make(stalled, limits=Limits(capture_rows=50, capture_flush_rows=5))
        capture.offer(**served())
        connection, _ = silent.accept()  # the writer waits from here on
        for number in range(100):
            capture.offer(**served(str(number)))
        assert capture.buffered_rows() == 50
        assert count(metrics, "dropped_rows") == 455
        started = time.monotonic()
        capture.close(0.3)
        assert time.monotonic() - started < 10  # far less than the writer would wait
        assert count(metrics, "dropped_rows") == 505
        connection.close()


def test_what_was_taken_is_written_when_the_store_is_back(
    make: Any, versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    location = versitygw.location()
    dead = location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    up = threading.Event()
    opened = make(
        location,
        limits=Limits(capture_rows=15, capture_flush_rows=5),
        open_bucket=lambda: Bucket.open(location if up.is_set() else dead, timeout_seconds=1),
    )
    capture, metrics = opened
    for number in range(4):
        capture.offer(**served(str(number)))
    until(lambda: count(metrics, "write_failures") >= 2)
    assert count(metrics, "dropped_rows") == 5
    up.set()
    until(lambda: count(metrics, "rows") == 15)
    assert sorted(set(rows_in(location))) == ["0", "1", "2"]
    capture.offer(**served("after"))
    capture.close(30)
    assert "after" in rows_in(location)
    assert count(metrics, "dropped_rows") == 5


class Forgetful:
    """A bucket whose first answer is lost after it has written."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.lost = False

    def put(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        written = self.bucket.put(key, data, only_if_absent)
        if not self.lost:
            self.lost = True
            raise StoreUnreachable("the answer was lost")
        return written


def test_an_answer_that_was_lost_doubles_nothing(
    make: Any, versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    location = versitygw.location()
    forgetful = Forgetful(Bucket.open(location))
    capture, metrics = make(location, open_bucket=lambda: forgetful, limits=Limits(capture_flush_rows=5))
    capture.offer(**served())
    until(lambda: count(metrics, "rows") == 5)
    capture.close(30)
    assert rows_in(location) == ["x"] * 5


def test_a_container_that_was_restarted_overwrites_nothing(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    for identifier in ("before", "after"):  # same pod, same numbers, same times
        capture, metrics = make(location)
        capture.offer(**served(identifier))
        capture.close(30)
        assert count(metrics, "rows") == 5
    assert sorted(set(rows_in(location))) == ["after", "before"]


def test_a_file_that_can_not_be_made_does_not_block_the_next(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    capture, metrics = make(location, limits=Limits(capture_flush_rows=5))
    capture.offer(**served("bad", event_times=[2**70] * 5))
    until(lambda: count(metrics, "dropped_rows") == 5)
    capture.offer(**served("good"))
    capture.close(30)
    assert set(rows_in(location)) == {"good"}


def test_what_the_model_drops_is_in_no_file(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    capture, _ = make(location, drop=["carrier", "hour"])
    capture.offer(**served())
    assert [set(one) for one in capture._current.unknown.values()] == [{NAMES.index("gate")}]  # nor is its text held
    capture.close(30)
    bucket = Bucket.open(location)
    (content,) = (bucket.get(info.key) for info in bucket.list())
    table = pq.read_table(io.BytesIO(content))
    assert [name for name in table.column_names if not name.startswith("truekeep.")] == ["distance", "gate"]
    assert table["gate"].to_pylist() == ROWS["gate"]
    assert pq.read_schema(io.BytesIO(content)).metadata[b"truekeep.dropped"] == b"carrier,hour"


def test_what_the_model_hashes_is_stored_as_keyed_hashes_only(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    hidden = ["hour", "carrier", "flight_id"]
    capture, _ = make(location, hash=hidden, drop=["gate"], hash_key=KEY)
    keys = ["K-1", "K-2", None, "K-1", "K-3"]
    capture.offer(**served(keys=keys))
    capture.offer(**served())  # without keys
    capture.close(30)
    bucket = Bucket.open(location)
    (content,) = (bucket.get(info.key) for info in bucket.list())
    table = pq.read_table(io.BytesIO(content))
    rows = table.to_pydict()
    assert table.schema.field("hour").type == pa.string()
    assert rows["truekeep.key"] == [key and hashed(KEY, "flight_id", key) for key in keys] + [None] * 5
    assert rows["hour"] == [hashed(KEY, "hour", text) if text else None for text in ("7", "23.5", None, "0", "12")] * 2
    assert rows["carrier"] == [value and hashed(KEY, "carrier", value) for value in ROWS["carrier"]] * 2
    assert rows["distance"] == ROWS["distance"] * 2
    everything = repr(rows) + repr(table.schema)
    assert not [value for value in ("K-1", "K-2", "K-3", "AA", "UA", "ZZ", "23.5") if f"'{value}'" in everything]
    metadata = pq.read_metadata(io.BytesIO(content)).metadata
    assert metadata[b"truekeep.hashed"] == b"carrier,flight_id,hour"
    assert metadata[b"truekeep.dropped"] == b"gate"


def test_a_file_says_what_answered_whatever_becomes_of_the_cluster(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    capture, _ = make(location)
    capture.offer(**served())
    capture.close(30)
    bucket = Bucket.open(location)
    (content,) = (bucket.get(info.key) for info in bucket.list())
    assert pq.read_metadata(io.BytesIO(content)).metadata == {
        b"truekeep.artifact": b"sha256:" + b"ab" * 32,
        b"truekeep.run": b"flight-delay-3",
        b"truekeep.format": b"onnx",
        b"truekeep.fraction_percent": b"100",
    }


def test_hashing_without_a_key_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="no key"):
        make(hash=["carrier"])


def test_a_sample_is_chosen_by_id() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    thirty = {identifier for identifier in ids if sampled(identifier, 30)}
    assert 1000 < len(thirty) < 1400
    assert thirty == {identifier for identifier in ids if sampled(identifier, 30)}
    assert thirty < {identifier for identifier in ids if sampled(identifier, 60)}
    assert all(sampled(identifier, 100) for identifier in ids)
    assert not any(sampled(identifier, 0) for identifier in ids)


def test_only_the_sample_is_captured(make: Any, versitygw: Versitygw) -> None:
    location = versitygw.location()
    capture, metrics = make(location, fraction_percent=30)
    for number in range(100):
        capture.offer(**served(f"request-{number}"))
    capture.close(30)
    expected = {f"request-{number}" for number in range(100) if sampled(f"request-{number}", 30)}
    assert set(rows_in(location)) == expected
    assert count(metrics, "rows") == 5 * len(expected)
    assert count(metrics, "dropped_rows") == 0
