"""Captures while the store is away: on disk, bounded, and in the store once when it is back, whoever was restarted."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import Versitygw, free_port, prepared_store, serving
from tests.unit.server.conftest import MODEL, Start, body, files_of, fit, signature_of
from tests.unit.server.test_capture import SOURCE, Forgetful, count, rows_in, served, until
from truekeep.api import capture as api
from truekeep.api.common import S3Location
from truekeep.contract.requests import SECRETS_DIR_ENV, SPOOL_DIR_ENV, ServeRequest
from truekeep.server import capture as capture_module
from truekeep.server import upload as upload_module
from truekeep.server.capture import Capture
from truekeep.server.limits import Limits
from truekeep.server.metrics import Metrics
from truekeep.server.spool import BLOCK, Spool
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket

Make = Callable[..., tuple[Capture, Metrics]]


@pytest.fixture
def make(versitygw: Versitygw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Captures with one spool folder, each with a new view of it, as a new process has."""
    monkeypatch.setattr(capture_module, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(upload_module, "FIRST_PAUSE", 0.05)
    folder = tmp_path / "spool"
    folder.mkdir()
    made: list[Capture] = []

    def make(open_bucket: Any, blocks: int = 1000, **limits: Any) -> tuple[Capture, Metrics]:
        metrics = Metrics()
        spec = api.Capture(s3=versitygw.location(), flush_seconds=3600)
        bounds = Limits(**{"capture_flush_rows": 5, **limits})
        spool = Spool(folder, blocks * BLOCK)
        made.append(Capture(spec, SOURCE, bounds, metrics, open_bucket, spool=spool))
        made[-1].start()
        return made[-1], metrics

    yield make
    for one in made:
        one.close(0)


def away(location: S3Location) -> Callable[[], Bucket]:
    dead = location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    return lambda: Bucket.open(dead, timeout_seconds=1)


def gauge(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"truekeep_server_capture_{name}") or 0.0


def test_rows_leave_the_memory_while_the_store_is_away_and_are_there_once_when_it_is_back(
    make: Make, versitygw: Versitygw
) -> None:
    location, back = versitygw.location(), threading.Event()
    dead = away(location)
    capture, metrics = make(lambda: Bucket.open(location) if back.is_set() else dead(), capture_rows=20)
    for number in range(40):  # ten times what the memory may hold
        capture.offer(**served(str(number)))
        until(lambda: capture.buffered_rows() == 0)
    assert (gauge(metrics, "spooled_rows"), count(metrics, "dropped_rows"), count(metrics, "rows")) == (200, 0, 0)
    assert gauge(metrics, "spooled_bytes") > 0
    until(lambda: count(metrics, "write_failures") >= 1)
    back.set()
    until(lambda: gauge(metrics, "spooled_rows") == 0)
    assert sorted(rows_in(location)) == sorted([str(number) for number in range(40)] * 5)
    assert (count(metrics, "rows"), count(metrics, "dropped_rows")) == (200, 0)


def test_when_disk_and_memory_are_full_the_newest_are_dropped_and_counted(make: Make, versitygw: Versitygw) -> None:
    location, back = versitygw.location(), threading.Event()
    dead = away(location)
    capture, metrics = make(lambda: Bucket.open(location) if back.is_set() else dead(), blocks=4, capture_rows=15)
    capture.offer(**served("0"))
    until(lambda: capture.buffered_rows() == 0)
    files = int(4 * BLOCK // gauge(metrics, "spooled_bytes"))
    assert files >= 2
    for number in range(1, files):
        capture.offer(**served(str(number)))
        until(lambda: capture.buffered_rows() == 0)
    for number in range(files, 60):
        capture.offer(**served(str(number)))
    assert (gauge(metrics, "spooled_rows"), capture.buffered_rows()) == (5 * files, 15)
    assert count(metrics, "dropped_rows") == 5 * (60 - files - 3)
    back.set()
    until(lambda: gauge(metrics, "spooled_rows") == 0 and capture.buffered_rows() == 0)
    assert sorted(map(int, rows_in(location))) == [number for number in range(files + 3) for _ in range(5)]


def test_the_next_process_uploads_what_the_last_one_left(make: Make, versitygw: Versitygw) -> None:
    location = versitygw.location()
    first, metrics = make(away(location))
    for number in range(3):
        first.offer(**served(str(number)))
    first.close(20)
    assert gauge(metrics, "spooled_rows") == 15
    assert count(metrics, "dropped_rows") == 0
    second, metrics = make(lambda: Bucket.open(location))
    until(lambda: gauge(metrics, "spooled_rows") == 0)
    assert sorted(rows_in(location)) == [str(number) for number in range(3) for _ in range(5)]
    assert count(metrics, "rows") == 15
    second.close(5)


def test_a_process_that_died_between_upload_and_forgetting_doubles_nothing(make: Make, versitygw: Versitygw) -> None:
    location = versitygw.location()
    forgetful = Forgetful(Bucket.open(location))
    first, metrics = make(lambda: forgetful)
    upload_module.FIRST_PAUSE = 3600  # it does not try again: it is as good as dead
    first.offer(**served())
    until(lambda: count(metrics, "write_failures") == 1)
    assert rows_in(location) == ["x"] * 5
    _, metrics = make(lambda: Bucket.open(location))
    until(lambda: gauge(metrics, "spooled_rows") == 0)
    assert rows_in(location) == ["x"] * 5


def test_a_spooled_file_that_can_not_be_read_is_counted_and_holds_up_nothing(
    make: Make, versitygw: Versitygw, tmp_path: Path
) -> None:
    location = versitygw.location()
    first, _ = make(away(location))
    first.offer(**served("lost"))
    first.offer(**served("kept"))
    first.close(20)
    files = sorted((tmp_path / "spool").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    spool = Spool(tmp_path / "spool", 1 << 20)
    files[0].unlink()
    metrics = Metrics()
    location_spec = api.Capture(s3=location, flush_seconds=3600)
    capture = Capture(location_spec, SOURCE, Limits(), metrics, lambda: Bucket.open(location), spool=spool)
    capture.start()
    until(lambda: gauge(metrics, "spooled_rows") == 0)
    capture.close(5)
    assert set(rows_in(location)) == {"kept"}
    assert (count(metrics, "rows"), count(metrics, "dropped_rows")) == (5, 5)


class Caller:
    """A client that asks on and on, and keeps the answers' ids."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.answered: list[str] = []
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        import httpx

        with httpx.Client(base_url=self._url, timeout=20, trust_env=False) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                identifier = f"{id(self)}-{number}"
                try:
                    answer = client.post(f"/v2/models/{MODEL}/infer", content=orjson.dumps(body(id=identifier)))
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                (self.answered if answer.status_code == 200 else self.failed).append(identifier)
                self._stop.wait(0.005)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(20)


def test_the_store_goes_away_under_load_and_the_server_is_killed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real store is stopped and started again, the server is killed by SIGKILL in between and started again with the
    same folder: every answer that was in a file is captured once; no request fails; nothing piles up in memory."""
    store = prepared_store(tmp_path / "store")
    monkeypatch.setenv(SECRETS_DIR_ENV, str(store.secrets))
    (tmp_path / "spool").mkdir()
    environment = {SPOOL_DIR_ENV: str(tmp_path / "spool"), SECRETS_DIR_ENV: str(store.secrets)}
    limits = {"capture_rows": 2000, "capture_flush_rows": 100}
    pipeline = fit()
    with serving(store):
        models = store.location("models/")
        digest = artifacts.write(Bucket.open(models), files_of(pipeline, signature_of(pipeline))).digest
        capture = api.Capture(s3=store.location("captures/"), flush_seconds=1)
        request = ServeRequest(
            namespace="demo", model=MODEL, revision=3, run="r", artifact_digest=digest, store=models,
            time_column="at", key="id", capture=capture,
        )  # fmt: skip
        server = start(request, limits=limits, more=environment).ready()
        caller = Caller(server.url)
        server.until(lambda: server.metric("truekeep_server_capture_rows_total") > 200)
    # The store is down; answers go on, and their rows to the disk.
    server.until(lambda: server.metric("truekeep_server_capture_write_failures_total") > 0)
    server.until(lambda: server.metric("truekeep_server_capture_spooled_rows") > 1000, seconds=60)
    assert server.metric("truekeep_server_capture_buffered_rows") <= 600
    assert server.metric("truekeep_server_capture_dropped_rows_total") == 0
    caller.end()
    server.until(lambda: server.metric("truekeep_server_capture_buffered_rows") == 0)
    server.process.kill()
    server.process.wait(20)
    assert (caller.failed, len(caller.answered) > 200) == ([], True)
    with serving(store):
        again = start(request, limits=limits, more=environment).ready()
        second = Caller(again.url)
        again.until(lambda: again.metric("truekeep_server_capture_spooled_rows") == 0, seconds=60)
        second.end()
        again.terminate()
        assert again.exit_code() == 0
        assert second.failed == []
        bucket = Bucket.open(capture.s3)
        found: list[str] = []
        for info in bucket.list():
            table = pq.read_table(io.BytesIO(bucket.get(info.key)), columns=["truekeep.request_id"])
            found += table["truekeep.request_id"].to_pylist()
    assert sorted(found) == sorted(identifier for identifier in caller.answered + second.answered for _ in range(5))
