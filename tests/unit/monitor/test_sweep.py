"""Retention on a real store: what is too old goes, by the hour in its path, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Versitygw, free_port
from truekeep.contract import layout
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LOG_ENV, SweepRequest
from truekeep.monitor import sweep as module
from truekeep.monitor.sweep import main, sweep
from truekeep.storage.s3 import Bucket

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
NAME = layout.CaptureName(1, 2, "pod-a", 1)


class Scene:
    def __init__(self, store: Versitygw, **options: Any) -> None:
        self.location = store.location("captures/", **options)
        self.bucket = Bucket.open(self.location)

    def file(self, received: datetime, revision: int = 1, model: str = "flight-delay") -> str:
        key = layout.captures("ns", model) + layout.capture_file(revision, received, NAME)
        self.bucket.put(key, b"x" * 100)
        return key

    def put(self, key: str) -> str:
        self.bucket.put(key, b"x")
        return key

    def request(self, days: int = 7) -> SweepRequest:
        return SweepRequest(namespace="ns", model="flight-delay", capture=self.location, retention_days=days)

    def keys(self) -> set[str]:
        return {info.key for info in self.bucket.list()}


@pytest.fixture
def scene(versitygw: Versitygw) -> Scene:
    return Scene(versitygw)


def test_what_is_older_goes_by_the_hour_and_a_second_sweep_finds_nothing(scene: Scene) -> None:
    edge = NOW - timedelta(days=7)  # 12:30: the hour from 11 ended before it, that from 12 did not
    old = {
        scene.file(edge - timedelta(hours=hours), revision) for hours in (1, 2, 30, 24 * 400) for revision in (1, 10)
    }
    young = {scene.file(edge + timedelta(hours=hours), revision) for hours in (0, 1, 100) for revision in (1, 2, 10)}
    account, before = sweep(scene.bucket, scene.request(), NOW)
    assert (account.files, account.size, account.left, account.odd) == (8, 800, False, 0)
    assert before == edge
    assert scene.keys() == young
    assert old.isdisjoint(scene.keys())
    assert sweep(scene.bucket, scene.request(), NOW)[0].files == 0


def test_files_without_an_hour_count_from_the_end_of_their_day(scene: Scene) -> None:
    old, young = (f"ns/flight-delay/revision=1/date=2026-03-0{day}/1_2_pod_000001.parquet" for day in (2, 3))
    scene.put(old)
    scene.put(young)
    assert sweep(scene.bucket, scene.request(), NOW)[0].files == 1
    assert scene.keys() == {young}


def test_nothing_but_captures_of_this_model_is_touched(scene: Scene) -> None:
    ancient = NOW - timedelta(days=900)
    kept = {
        scene.file(ancient, model="flight-delay-2"),
        scene.put("ns/flight-delay/erasures/2020-01-01T000000Z_ab.json"),
        scene.put("ns/flight-delay/revision=1/date=2020-01-01/notes.parquet"),
        scene.put("ns/flight-delay/revision=1/date=2020-13-01/hour=01/1_2_pod_000001.parquet"),
        scene.put("ns/flight-delay/revision=1/date=2020-01-01/hour=77/1_2_pod_000001.parquet"),
        scene.put("ns/flight-delay/readme"),
    }
    scene.file(ancient)
    account, _ = sweep(scene.bucket, scene.request(), NOW)
    assert (account.files, account.odd) == (1, 3)
    assert scene.keys() == kept


def test_young_revisions_are_not_listed_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for revision in range(1, 4):
        for hours in range(30):
            scene.file(NOW - timedelta(hours=hours), revision)
        scene.file(NOW - timedelta(days=30), revision)
    seen: list[str] = []
    plain = Bucket.list

    def counted(self: Bucket, prefix: str = "", start_after: str | None = None) -> Any:
        for info in plain(self, prefix, start_after):
            seen.append(info.key)
            yield info

    monkeypatch.setattr(Bucket, "list", counted)
    account, _ = sweep(scene.bucket, scene.request(), NOW)
    assert account.files == 3
    assert len(seen) == 6  # of each revision the old one, and the first that is young


def test_a_sweep_is_bounded_and_the_next_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_AT_ONCE", 5)
    monkeypatch.setattr(module, "GROUP", 2)
    for hours in range(8):
        scene.file(NOW - timedelta(days=30, hours=hours))
    first, _ = sweep(scene.bucket, scene.request(), NOW)
    assert (first.files, first.left, len(scene.keys())) == (5, True, 3)
    second, _ = sweep(scene.bucket, scene.request(), NOW)
    assert (second.files, second.left, scene.keys()) == (3, False, set())


def pod(scene: Scene, tmp_path: Path, **changed: Any) -> tuple[int, str, str]:
    """Exit code, output and termination message of the pod."""
    request = scene.request().model_copy(update=changed)
    environment = {
        **os.environ,
        REQUEST_ENV: request.model_dump_json(by_alias=True),
        TERMINATION_LOG_ENV: str(tmp_path / "word"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "truekeep.monitor.sweep"], env=environment, capture_output=True, text=True, check=False
    )
    word = tmp_path / "word"
    return done.returncode, done.stdout + done.stderr, word.read_text() if word.exists() else ""


def test_the_pod_says_what_it_did_and_that_versions_stay(versitygw: Versitygw, tmp_path: Path) -> None:
    scene = Scene(versitygw, versions=True)
    scene.file(datetime.now(UTC) - timedelta(days=8))
    young = scene.file(datetime.now(UTC))
    code, said, word = pod(scene, tmp_path)
    assert code == 0, said
    assert word.startswith("ns/flight-delay: 1 capture files (100 bytes) that were received before ")
    assert word.endswith("noncurrent versions, for which it needs a lifecycle rule")
    assert word in said
    assert scene.keys() == {young}


def test_a_store_that_is_down_is_another_try(scene: Scene, tmp_path: Path) -> None:
    nobody = scene.location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    code, said, word = pod(scene, tmp_path, capture=nobody)
    assert code == 4
    assert word.startswith("the sweep could not be finished, the next one goes on: could not list s3://")
    assert "Traceback" not in said


def test_no_request_is_no_second_try(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(REQUEST_ENV, '{"namespace": "ns"}')
    assert main() == 3
    assert "holds no valid request" in capsys.readouterr().out
