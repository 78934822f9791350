"""Nothing is served but the artifact that the digest names, and that answers its examples as training did."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io as skops_io

from tests.unit.conftest import free_port
from tests.unit.server.conftest import FEATURES, ROWS, Published, Start, files_of, fit, signature_of
from truekeep.api.common import LocalObjectReference
from truekeep.contract.artifact import Example
from truekeep.contract.layout import MANIFEST, MODEL_FILE, ONNX_FILE, SIGNATURE, artifact_file
from truekeep.contract.results import EXIT_INPUT, EXIT_OUTSIDE
from truekeep.server.load import ModelInvalidError, fetch, load, obtain
from truekeep.storage import StoreError
from truekeep.trainer.onnx.graph import convert

Publish = Callable[[dict[str, bytes]], Published]


def test_a_good_artifact_is_loaded(published: Published, pipeline: Pipeline) -> None:
    model = load(fetch(published.request(), seconds=5))
    assert model.self_test_difference == 0
    matrix = model.encoder.encode({"hour": [3], "distance": [10], "carrier": ["UA"], "gate": [10]}, 1)
    assert model.predict(matrix).tolist() == pipeline.predict_proba(matrix)[:, 1].tolist()
    assert model.cost.call > 0


def test_the_onnx_file_serves_where_there_is_one(publish: Publish, pipeline: Pipeline) -> None:
    both = publish(files_of(pipeline, signature_of(pipeline), onnx=True))
    fetched = fetch(both.request(), seconds=5)
    assert sorted(fetched) == sorted([ONNX_FILE, SIGNATURE])
    model = load(fetched)
    assert (model.format, load(fetch(both.request(), seconds=5, onnx=False)).format) == ("onnx", "skops")
    matrix = model.encoder.encode(ROWS, 5)
    np.testing.assert_allclose(model.predict(matrix), pipeline.predict_proba(matrix)[:, 1], rtol=0, atol=1e-15)


def test_an_onnx_file_that_answers_otherwise_leaves_it_to_skops(publish: Publish, pipeline: Pipeline) -> None:
    files = files_of(pipeline, signature_of(pipeline))
    for wrong in (convert(fit(seed=6), 4), convert(pipeline, 5), b"damaged"):
        model = obtain(publish({**files, ONNX_FILE: wrong}).request(), seconds=5)
        assert (model.format, model.self_test_difference) == ("skops", 0)


@pytest.mark.parametrize("name", [MANIFEST, MODEL_FILE, SIGNATURE])
@pytest.mark.parametrize("change", ["altered", "missing"])
def test_an_altered_artifact_is_refused(published: Published, name: str, change: str) -> None:
    client, bucket = published.store.client(), published.location.uri.split("/")[2]
    key = "models/" + artifact_file(published.digest, name)
    if change == "missing":
        client.delete_object(Bucket=bucket, Key=key)
    else:
        content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        client.put_object(Bucket=bucket, Key=key, Body=content.replace(b"0", b"1", 1))
    with pytest.raises(ModelInvalidError, match=published.digest.removeprefix("sha256:")):
        fetch(published.request(), seconds=5)


def test_another_digest_is_refused(published: Published) -> None:
    with pytest.raises(ModelInvalidError, match="is missing"):
        fetch(published.request(artifact_digest="sha256:" + "0" * 64), seconds=5)


def test_a_store_that_does_not_answer_is_tried_again_and_then_given_up(published: Published) -> None:
    nobody = published.location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    pauses: list[float] = []
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        fetch(published.request(store=nobody), seconds=1, sleep=pauses.append, clock=lambda: sum(pauses))
    assert len(pauses) >= 3
    assert 1 <= sum(pauses) <= 1.1


def signature_bytes(change: Callable[[dict[str, Any]], None]) -> bytes:
    document = signature_of(fit()).model_dump(mode="json", by_alias=True)
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("features"), "its signature: features: Field required"),
        (lambda d: d.update(features=[]), "no features, or one of them twice"),
        (lambda d: d.update(features=[d["features"][0]] * 4), "no features, or one of them twice"),
        (lambda d: d.update(cutOff=1.5), "the cut-off 1.5 is not between 0 and 1"),
        (lambda d: d.update(examples=[]), "no examples"),
        (lambda d: d.update(tolerance=-1), "the tolerance -1.0"),
        (lambda d: d.update(estimator="os.system"), "estimator 'os.system' is not allowed"),
        (lambda d: d.update(estimator="sklearn.ensemble.RandomForestClassifier"), "not allowed in a pipeline of"),
        (lambda d: d["features"].pop(), "the model takes 4 columns, but its signature lists 3"),
        (lambda d: d["examples"][0]["inputs"].update(distance=None), "an example does not fit the signature: distance"),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(change: Any, message: str, pipeline: Pipeline) -> None:
    with pytest.raises(ModelInvalidError, match=message):
        load({MODEL_FILE: skops_io.dumps(pipeline), SIGNATURE: signature_bytes(change)})


def test_a_model_that_answers_otherwise_is_refused(pipeline: Pipeline) -> None:
    signature = signature_of(fit(seed=6))
    got = signature_of(pipeline).examples
    worst = max(range(5), key=lambda i: abs(got[i].probability - signature.examples[i].probability))
    with pytest.raises(ModelInvalidError) as caught:
        load(files_of(pipeline, signature))
    message = str(caught.value)
    assert message.startswith(f"the self-test failed: example {worst} (hour=")
    assert f"expected probability {signature.examples[worst].probability:.12g}" in message
    assert f"got {got[worst].probability:.12g}, tolerance 1e-09" in message


def test_a_difference_within_the_tolerance_is_served_and_said(pipeline: Pipeline) -> None:
    signature = signature_of(pipeline)
    first = signature.examples[0]
    shifted = Example(inputs=first.inputs, probability=first.probability + 5e-4)
    changes = {"examples": [shifted, *signature.examples[1:]], "tolerance": 1e-3}
    model = load(files_of(pipeline, signature.model_copy(update=changes)))
    assert model.self_test_difference == pytest.approx(5e-4)


def test_a_pickle_is_refused(pipeline: Pipeline) -> None:
    files = {**files_of(pipeline, signature_of(pipeline)), MODEL_FILE: pickle.dumps(pipeline)}
    with pytest.raises(ModelInvalidError, match="pickle and joblib files are never loaded"):
        load(files)


def test_a_type_of_somebody_s_own_is_refused(pipeline: Pipeline) -> None:
    odd = Pipeline([("odd", FunctionTransformer(np.abs)), ("model", LogisticRegression())])
    odd.fit(np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2)
    with pytest.raises(ModelInvalidError, match=r"holds (numpy\.absolute|sklearn\S+FunctionTransformer) "):
        load({**files_of(pipeline, signature_of(pipeline)), MODEL_FILE: skops_io.dumps(odd)})


def test_the_process_ends_with_3_and_says_why(publish: Publish, pipeline: Pipeline, start: Start) -> None:
    wrong = publish(files_of(pipeline, signature_of(fit(seed=6))))
    running = start(wrong.request()).listen()
    assert running.exit_code() == EXIT_INPUT
    reason = running.termination.read_text()
    assert reason.startswith("the self-test failed: example ")
    assert [line["reason"] for line in running.logged("the artifact is invalid")] == [reason]
    assert not running.logged("ready")
    assert "Traceback" not in running.log.read_text()


def test_a_hash_key_that_is_not_there_ends_with_3_and_nothing_is_stored(published: Published, start: Start) -> None:
    capture = published.capture(hash=["carrier"], hash_key_secret_ref=LocalObjectReference(name="nobody"))
    running = start(published.request(capture=capture)).listen()
    assert running.exit_code() == EXIT_INPUT
    assert running.termination.read_text().startswith("Secret nobody, key HASH_KEY: can't be read")
    assert not running.logged("ready")


def test_the_process_waits_for_the_store_alive_but_not_ready(published: Published, start: Start) -> None:
    nobody = published.location.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    running = start(published.request(store=nobody), limits={"load_seconds": 3}).listen()
    running.until(lambda: running.logged("the store does not answer, trying again"))
    with running.client() as client:
        assert client.get("/v2/health/live").json() == {"live": True, "ready": False}
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"live": True, "ready": False})
        assert client.get("/v2/models/flight-delay/ready").status_code == 503
        answer = client.post("/v2/models/flight-delay/infer", json={"inputs": []})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "model flight-delay is still loading; try again"}
    assert running.exit_code() == EXIT_OUTSIDE
    assert "127.0.0.1" in running.termination.read_text()
    assert len(running.termination.read_bytes()) < 4096


@pytest.mark.parametrize("request_text", ["", "{", '{"namespace": "demo"}'])
def test_a_request_that_is_none_ends_with_3(start: Start, request_text: str) -> None:
    running = start(request_text)
    assert running.exit_code() == EXIT_INPUT
    assert running.termination.read_text()
    assert running.logged("the request is invalid")


def test_the_features_are_those_of_the_signature() -> None:
    assert [feature.name for feature in signature_of(fit()).features] == [feature.name for feature in FEATURES]
