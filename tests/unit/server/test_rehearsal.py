"""A candidate answers what the live revision was asked, in a process of its own, before anybody depends on it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.unit.server.conftest import MODEL, Published, Start, body, files_of, fit, signature_of
from truekeep.api.common import LocalObjectReference
from truekeep.contract.layout import captures
from truekeep.contract.requests import RehearseRequest
from truekeep.monitor.rehearse import distance, main, rehearse
from truekeep.storage.s3 import Bucket

ASKED = {"hour": [7.0, None], "distance": [200.0, 950.0], "carrier": ["UA", "B6"], "gate": ["A1", None]}


@pytest.fixture
def captured(published: Published, start: Start) -> tuple[Any, Bucket]:
    """Captures of five requests that revision 3 answered."""
    capture = published.capture(flush_seconds=3600)
    live = start(published.request(capture=capture)).ready()
    rows = {name: values for name, values in ASKED.items() if name in _inputs(published)}
    with live.client() as client:
        for number in range(5):
            answer = client.post(f"/v2/models/{MODEL}/infer", json=body(rows, id=f"r{number}"))
            assert answer.status_code == 200, answer.text
    live.terminate()
    assert live.exit_code() == 0
    return capture, Bucket.open(capture.s3)


def _inputs(published: Published) -> set[str]:
    return {feature.name for feature in signature_of(fit()).features}


def request(capture: Any, url: str, **changes: Any) -> RehearseRequest:
    fixed = {"namespace": "demo", "model": MODEL, "candidate": "c", "url": url, "live_revision": 3}
    return RehearseRequest.model_validate({**fixed, "capture": capture.s3, "rows": 1000, "waitSeconds": 20, **changes})


def test_the_same_model_answers_the_same(captured: Any, published: Published, start: Start) -> None:
    capture, bucket = captured
    candidate = start(published.request(revision=4, capture=capture)).ready()
    result = rehearse(request(capture, candidate.url), bucket)
    assert result.reason == "Rehearsed"
    assert (result.rehearsal.requests, result.rehearsal.rows, result.rehearsal.failed) == (5, 10, 0)
    assert float(result.rehearsal.prediction_shift) == 0
    assert float(result.rehearsal.p99_milliseconds) > 0
    assert candidate.metric("truekeep_server_requests_total", outcome="rehearsal") == 5
    assert candidate.metric("truekeep_server_requests_total", outcome="ok") == 0
    candidate.terminate()
    assert candidate.exit_code() == 0
    assert not list(bucket.list(captures("demo", MODEL, 4))), "a rehearsal is not captured"


def test_a_model_with_another_input_fails_it(captured: Any, publish: Any, start: Start) -> None:
    capture, bucket = captured
    pipeline = fit()
    signature = signature_of(pipeline)
    renamed = [feature.model_copy(update={"name": f"new_{feature.name}"}) for feature in signature.features]
    examples = [
        example.model_copy(update={"inputs": {f"new_{name}": value for name, value in example.inputs.items()}})
        for example in signature.examples
    ]
    other = publish(files_of(pipeline, signature.model_copy(update={"features": renamed, "examples": examples})))
    candidate = start(other.request(revision=4)).ready()
    result = rehearse(request(capture, candidate.url), bucket)
    assert result.rehearsal.failed == result.rehearsal.requests == 5
    assert "400" in result.rehearsal.message


@pytest.mark.parametrize("settings", [{"drop": ["gate"]}, {"hash": ["hour"]}])
def test_requests_that_were_not_kept_whole_are_not_sent_again(
    settings: dict[str, Any], published: Published, start: Start
) -> None:
    """Else a candidate would fail what no client ever asked, when a Model stops dropping or hashing a column."""
    secret = {"hash_key_secret_ref": LocalObjectReference(name="salt")} if "hash" in settings else {}
    capture = published.capture(flush_seconds=3600, **settings, **secret)
    live = start(published.request(capture=capture)).ready()
    with live.client() as client:
        assert client.post(f"/v2/models/{MODEL}/infer", json=body()).status_code == 200
    live.terminate()
    assert live.exit_code() == 0
    assert list(Bucket.open(capture.s3).list(captures("demo", MODEL, 3)))
    candidate = start(published.request(revision=4)).ready()
    assert rehearse(request(capture, candidate.url), Bucket.open(capture.s3)).reason == "NothingCaptured"


def test_the_rows_are_bounded_and_nothing_captured_is_said(captured: Any, published: Published, start: Start) -> None:
    capture, bucket = captured
    candidate = start(published.request(revision=4)).ready()
    assert rehearse(request(capture, candidate.url, rows=3), bucket).rehearsal.rows == 3
    nothing = rehearse(request(capture, candidate.url, liveRevision=9), bucket)
    assert nothing.reason == "NothingCaptured"
    assert "revision 9" in nothing.rehearsal.message


def test_the_pod_hands_over_its_result(
    captured: Any, published: Published, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    capture, _ = captured
    candidate = start(published.request(revision=4)).ready()
    monkeypatch.setenv("TRUEKEEP_TERMINATION_LOG", str(tmp_path / "word"))
    monkeypatch.setenv("TRUEKEEP_REQUEST", request(capture, candidate.url).model_dump_json(by_alias=True))
    assert main() == 0
    assert json.loads((tmp_path / "word").read_text())["rehearsal"]["requests"] == 5
    monkeypatch.setenv(
        "TRUEKEEP_REQUEST", request(capture, "http://127.0.0.1:9", waitSeconds=1).model_dump_json(by_alias=True)
    )
    assert main() == 4
    assert json.loads((tmp_path / "word").read_text())["reason"] == "NotReady"
    monkeypatch.setenv("TRUEKEEP_REQUEST", "{}")
    assert main() == 3


def test_the_distance_is_scipys() -> None:
    random = np.random.default_rng(3)
    before, after = random.normal(size=400).round(1), random.normal(0.3, 1, size=250).round(1)
    assert distance(before, after) == pytest.approx(stats.ks_2samp(before, after).statistic, abs=1e-12)
