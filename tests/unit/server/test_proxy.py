"""Our server in front of a team's own: one process each, over real sockets and a real store."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc
import tritonclient.http
from sklearn.pipeline import Pipeline

from tests.unit.conftest import Versitygw, free_port
from tests.unit.server.backend import Asked, Backend, Behave, Model, Reply, http, predicted
from tests.unit.server.conftest import (
    FEATURES,
    MODEL,
    NAMES,
    ROWS,
    Published,
    Running,
    Start,
    body,
    files_of,
    signature_of,
    tensor,
)
from truekeep.contract.requests import MODEL_DIR_ENV, REQUEST_ENV, TERMINATION_LOG_ENV
from truekeep.contract.requests import Backend as Wanted
from truekeep.features.encode import Encoder
from truekeep.server import folder
from truekeep.server.limits import Limits
from truekeep.server.load import ModelInvalidError

INFER = f"/v2/models/{MODEL}/infer"
READY = "/v2/health/ready"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    monkeypatch.setenv(MODEL_DIR_ENV, str(path))
    return path


@pytest.fixture
def backend(pipeline: Pipeline) -> Iterator[Backend]:
    made = Backend(Model(pipeline, FEATURES))
    yield made
    made.close()


def fetched(published: Published, tmp_path: Path, limits: str = "{}") -> tuple[int, str]:
    """Run the init container: its exit code, and its last words."""
    words = tmp_path / "words"
    done = subprocess.run(
        [sys.executable, "-m", "truekeep.server", "fetch"],
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            **published.store.environment(),
            "PYTHONPATH": "operator",
            REQUEST_ENV: published.request().model_dump_json(by_alias=True),
            TERMINATION_LOG_ENV: str(words),
            "TRUEKEEP_SERVER_LIMITS": limits,
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, words.read_text() if words.exists() else done.stderr.decode()


@pytest.fixture
def front(published: Published, place: Path, start: Start, backend: Backend) -> Callable[..., Running]:
    """Start our server in front of the backend."""
    assert folder.fetch(published.request(), Limits()) == 0

    def front(limits: dict[str, Any] | None = None, **changes: Any) -> Running:
        wanted = {"timeout_seconds": 5, **changes.pop("wanted", {})}
        given = Wanted(port=backend.port, **wanted)
        return start(published.request(backend=given, **changes), limits)

    return front


Front = Callable[..., Running]


def test_every_way_to_ask_gives_the_pipelines_numbers(front: Front, pipeline: Pipeline, backend: Backend) -> None:
    expected = pipeline.predict_proba(Encoder(FEATURES).encode(ROWS, 5))[:, 1]
    running = front().ready()
    with running.client() as client:
        answer = client.post(INFER, json=body(id="mine")).json()
        assert (answer["id"], answer["model_version"]) == ("mine", "3")
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        np.testing.assert_allclose(outputs["probability"], expected, rtol=0, atol=1e-9)
        assert outputs["prediction"] == [int(value >= 0.4) for value in expected]
        metadata = client.get(f"/v2/models/{MODEL}").json()
        assert metadata["platform"] == "image"
        assert [each["name"] for each in metadata["inputs"]] == NAMES
        assert client.get("/openapi.json").status_code == 200
    for kind, url in ((tritonclient.http, f"127.0.0.1:{running.port}"), (tritonclient.grpc, running.grpc)):
        client = kind.InferenceServerClient(url)
        assert client.is_server_ready()
        inputs = []
        for name in NAMES:
            number = name in ("hour", "distance")
            values = np.array(ROWS[name], dtype=np.float64 if number else np.object_)[[0, 1, 3 if number else 0]]
            one = kind.InferInput(name, [3], "FP64" if number else "BYTES")
            one.set_data_from_numpy(values)
            inputs.append(one)
        got = client.infer(MODEL, inputs).as_numpy("probability")
        columns = {name: [ROWS[name][0], ROWS[name][1], ROWS[name][3 if name in NAMES[:2] else 0]] for name in NAMES}
        wanted = pipeline.predict_proba(Encoder(FEATURES).encode(columns, 3))[:, 1]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
        client.close()
    assert all("scheduled_at" not in asked.body.decode() for asked in backend.questions)


def test_rows_are_captured_and_counted_as_our_own_servers(
    front: Front, published: Published, backend: Backend, pipeline: Pipeline
) -> None:
    capture = published.capture()
    running = front(capture=capture).ready()
    extra = [tensor("scheduled_at", ["2024-05-01T12:00:00Z"] * 5), tensor("flight_id", list(range(5)), "INT64")]
    document = body(id="kept")
    document["inputs"] += extra
    with running.client() as client:
        assert client.post(INFER, json=document).status_code == 200
        assert client.post(INFER, json=body(), headers={"truekeep-rehearsal": "true"}).status_code == 200
        assert client.post(INFER, content=b"{").status_code == 400
    running.until(lambda: running.metric("truekeep_server_capture_rows_total") == 5)
    assert running.metric("truekeep_server_requests_total", outcome="ok") == 1
    assert running.metric("truekeep_server_requests_total", outcome="rehearsal") == 1
    assert running.metric("truekeep_server_requests_total", outcome="client_error") == 1
    assert running.metric("truekeep_server_ready") == 1
    client, (bucket, prefix) = published.store.client(), capture.s3.uri.removeprefix("s3://").split("/", 1)
    (key,) = (each["Key"] for each in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"])
    table = pq.read_table(io.BytesIO(client.get_object(Bucket=bucket, Key=key)["Body"].read())).to_pydict()
    assert table["truekeep.request_id"] == ["kept"] * 5
    assert table["truekeep.key"] == ["0", "1", "2", "3", "4"]
    assert table["truekeep.revision"] == [3] * 5
    assert table["carrier"] == ROWS["carrier"]
    assert table["hour"] == ROWS["hour"]
    expected = pipeline.predict_proba(Encoder(FEATURES).encode(ROWS, 5))[:, 1]
    np.testing.assert_allclose(table["truekeep.probability"], expected, rtol=0, atol=1e-9)


def test_it_is_ready_when_the_backend_is_and_no_longer(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    model, ready = Model(pipeline, FEATURES), [False]

    def behave(asked: Asked) -> Reply:
        return http(503, {"ready": False}) if asked.method == "GET" and not ready[0] else model(asked)

    backend.behave = behave
    running = front().listen()
    with running.client() as client:
        running.until(lambda: running.logged("the team's server is not ready"))
        assert client.get(READY).status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert client.post(INFER, json=body()).status_code == 503
        assert not backend.questions
        ready[0] = True
        running.until(lambda: client.get(READY).status_code == 200)
        ready[0] = False
        running.until(lambda: client.get(READY).status_code == 503)
        assert client.post(INFER, json=body()).status_code == 200  # who comes nevertheless
        ready[0] = True
        running.until(lambda: client.get(READY).status_code == 200)
        assert running.logged("the team's server is ready")[-1]


def wrong_by(amount: float, pipeline: Pipeline) -> Behave:
    model = Model(pipeline, FEATURES)

    def behave(asked: Asked) -> Reply:
        if asked.method == "GET":
            return model(asked)
        columns = {each["name"]: each["data"] for each in asked.document["inputs"]}
        matrix = Encoder(FEATURES).encode(columns, len(columns["hour"]))
        return http(200, predicted((pipeline.predict_proba(matrix)[:, 1] + amount).tolist()))

    return behave


def test_other_numbers_than_trainings_are_refused_before_any_traffic(
    front: Front, backend: Backend, pipeline: Pipeline
) -> None:
    backend.behave = wrong_by(1e-6, pipeline)
    running = front()
    assert running.exit_code() == 3
    words = running.termination.read_text()
    assert "the self-test failed: example " in words
    assert "tolerance 1e-09" in words
    assert "spec.serving.image.tolerance" in words


def test_a_tolerance_lets_other_arithmetic_in(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    backend.behave = wrong_by(1e-6, pipeline)
    running = front(wanted={"tolerance": 1e-5}).ready()
    assert running.metric("truekeep_server_self_test_difference") == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (http(400, {"error": "what is a carrier?"}), "refuses the request: what is a carrier?"),
        (http(200, b"<html>"), "its answer is no infer response"),
        (http(500, b"boom"), "it failed with HTTP 500; its log says why"),
    ],
)
def test_one_that_says_it_is_ready_and_can_not_answer_is_refused(
    front: Front, backend: Backend, reply: bytes, message: str
) -> None:
    backend.behave = lambda asked: http(200, {}) if asked.method == "GET" else reply
    running = front()
    assert running.exit_code() == 3
    assert message in running.termination.read_text()


def test_one_that_dies_fails_what_it_was_asked_and_comes_back_after_a_test(
    front: Front, backend: Backend, pipeline: Pipeline
) -> None:
    running = front().ready()
    with running.client() as client:
        assert client.post(INFER, json=body()).status_code == 200
        backend.die()
        answer = client.post(INFER, json=body())
        assert answer.status_code in (502, 503)  # 503: it was noticed already
        assert "the model's own server" in answer.json()["error"]
        running.until(lambda: client.get(READY).status_code == 503)
        answer = client.post(INFER, json=body())
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert client.get("/backend/live").status_code == 200  # there is nothing to kill
        assert running.metric("truekeep_server_requests_total", outcome="server_error") == 2
        assert running.metric("truekeep_server_in_flight_requests") == 0
        again = Backend(Model(pipeline, FEATURES), backend.port)
        try:
            running.until(lambda: client.get(READY).status_code == 200)
            assert len(again.questions) == 2
            assert client.post(INFER, json=body()).status_code == 200
        finally:
            again.close()


def test_one_that_comes_back_as_another_model_is_refused(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    running = front().ready()
    backend.die()
    running.until(lambda: running.metric("truekeep_server_ready") == 0)
    again = Backend(wrong_by(0.01, pipeline), backend.port)
    try:
        assert running.exit_code() == 3
        assert "the self-test failed" in running.termination.read_text()
    finally:
        again.close()


def test_one_that_hangs_fails_in_time_and_may_be_killed(front: Front, backend: Backend) -> None:
    running = front({"backend_silent_seconds": 1}, wanted={"timeout_seconds": 1}).ready()
    backend.behave = lambda asked: None
    with running.client() as client:
        answer = client.post(INFER, json=body())
        assert answer.status_code == 504
        assert answer.json() == {"error": "the model's own server: no answer within 1 s"}
        running.until(lambda: client.get("/backend/live").status_code == 503)
        running.until(lambda: client.get(READY).status_code == 503)
        assert client.get("/v2/health/live").status_code == 200
        assert running.metric("truekeep_server_requests_total", outcome="server_error") == 1


def test_over_grpc_its_faults_have_codes(front: Front, backend: Backend) -> None:
    running = front(wanted={"timeout_seconds": 1}).ready()
    client = tritonclient.grpc.InferenceServerClient(running.grpc)
    inputs = []
    for name in NAMES:
        number = name in ("hour", "distance")
        one = tritonclient.grpc.InferInput(name, [1], "FP64" if number else "BYTES")
        one.set_data_from_numpy(np.array(ROWS[name][:1], dtype=np.float64 if number else np.object_))
        inputs.append(one)
    for reply, code in ((http(500, b""), "UNAVAILABLE"), (None, "DEADLINE_EXCEEDED")):
        backend.behave = lambda asked, reply=reply: http(200, {}) if asked.method == "GET" else reply
        with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
            client.infer(MODEL, inputs)
        assert code in str(caught.value.status())
    client.close()


def test_too_much_at_once_is_refused_and_health_stays(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    running = front({"in_flight": 3}).ready()
    model, release = Model(pipeline, FEATURES), threading.Event()

    def behave(asked: Asked) -> Reply:
        if asked.method == "POST":
            release.wait(20)
        return model(asked)

    backend.behave = behave
    codes: list[int] = []

    def ask() -> None:
        with running.client() as client:
            codes.append(client.post(INFER, json=body()).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    running.until(lambda: len(codes) == 5)
    assert codes == [429] * 5
    with running.client() as client:
        assert client.get("/v2/health/live").status_code == 200
    release.set()
    for thread in threads:
        thread.join(30)
    assert sorted(codes) == [200] * 3 + [429] * 5
    assert running.metric("truekeep_server_requests_total", outcome="rejected") == 5


def test_what_is_under_way_at_the_end_is_answered(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    running = front().ready()
    model, asked_it, release = Model(pipeline, FEATURES), threading.Event(), threading.Event()

    def behave(asked: Asked) -> Reply:
        if asked.method == "POST":
            asked_it.set()
            release.wait(20)
        return model(asked)

    backend.behave = behave
    answers: list[Any] = []

    def ask() -> None:
        with running.client() as client:
            answers.append(client.post(INFER, json=body()))

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked_it.wait(20)
    running.terminate()
    running.until(lambda: running.logged("draining"))
    release.set()
    thread.join(30)
    assert answers[0].status_code == 200
    assert answers[0].headers["connection"] == "close"
    assert running.exit_code() == 0


def test_the_init_container_puts_every_file_there_checked(published: Published, place: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time, too: the pod's sandbox may be made anew
        assert fetched(published, tmp_path)[0] == 0
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "model.skops", "signature.json"]
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o444}
    content = folder.read(place, published.digest, "model.skops")
    (place / "model.skops").chmod(0o644)
    (place / "model.skops").write_bytes(content + b"x")
    with pytest.raises(ModelInvalidError, match="has not the sha256"):
        folder.read(place, published.digest, "model.skops")
    with pytest.raises(ModelInvalidError, match="is not that of"):
        folder.read(place, "sha256:" + "0" * 64, "signature.json")
    with pytest.raises(ModelInvalidError, match="can't be read"):
        folder.read(place, published.digest, "other.json")


def test_an_altered_file_is_not_handed_over(
    publish: Callable[[dict[str, bytes]], Published], pipeline: Pipeline, place: Path, tmp_path: Path
) -> None:
    published = publish(files_of(pipeline, signature_of(pipeline)))
    bucket = published.location.uri.removeprefix("s3://").split("/")[0]
    key = f"models/artifacts/sha256/{published.digest.removeprefix('sha256:')}/model.skops"
    published.store.client().put_object(Bucket=bucket, Key=key, Body=b"something else")
    code, words = fetched(published, tmp_path)
    assert code == 3
    assert "altered" in words
    assert not (place / "model.skops").exists()


def test_a_store_that_is_away_is_a_matter_of_trying_again(
    versitygw: Versitygw, published: Published, place: Path, tmp_path: Path
) -> None:
    away = published.location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    code, words = fetched(Published(versitygw, away, published.digest), tmp_path, '{"load_seconds": 0.5}')
    assert code == 4
    assert "127.0.0.1" in words


def test_a_front_without_its_folder_says_so(published: Published, place: Path, start: Start, backend: Backend) -> None:
    running = start(published.request(backend=Wanted(port=backend.port)))
    assert running.exit_code() == 3
    assert f"the artifact in {place} can't be read" in running.termination.read_text()


def test_a_slow_start_of_the_backend_is_waited_for(front: Front, backend: Backend, pipeline: Pipeline) -> None:
    backend.die()
    running = front().listen()
    time.sleep(0.5)
    again = Backend(Model(pipeline, FEATURES), backend.port)
    try:
        running.ready()
    finally:
        again.close()
