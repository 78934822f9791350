"""From a run with transformers, and the event's own time as a feature, to a real server: it answers what training
computes; what is captured is raw, and can be replayed and counted."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.server.conftest import MODEL, Published, Start
from tests.unit.trainer.lake import START, data_of, events, request_of
from tests.unit.trainer.test_run import Place
from truekeep.api.training import Training
from truekeep.contract.artifact import Signature
from truekeep.contract.layout import MODEL_FILE, captures, parse_capture_file
from truekeep.contract.requests import RehearseRequest, TrainRequest
from truekeep.features import encode, times
from truekeep.features.trust import load_pipeline
from truekeep.monitor.captures import CaptureFile, Skipped, count
from truekeep.monitor.rehearse import rehearse
from truekeep.profiling.schema import Profile
from truekeep.storage.s3 import Bucket
from truekeep.trainer.recipe.pipeline import probabilities

STEPS = [
    {"name": "clock", "columns": ["at"], "dateParts": {"parts": ["Hour", "DayOfWeek"], "encoding": "Cyclic"}},
    {"name": "cut", "columns": ["amount"], "clip": {"lowQuantile": "0.01", "highQuantile": "0.99"}},
    {"name": "risk", "columns": ["kind"], "originals": "Keep", "targetEncode": {}},
    {"name": "hot", "columns": ["kind"], "oneHot": {}},
]
FEATURES = [
    {"name": "amount", "type": "Number"},
    {"name": "kind", "type": "Category"},
    {"name": "at", "type": "Time"},
]
ROWS: dict[str, list[Any]] = {
    "amount": [0.5, None, -3.0, 40.0],
    "kind": ["a", "b", None, "zz"],
    "at": ["2024-02-01T10:00:00Z", "2024-02-01T13:30:00+02:00", "2024-02-03T23:59:59.999999Z", "2024-02-02 12:00"],
}
MOMENTS = [
    datetime(2024, 2, 1, 10, tzinfo=UTC),
    datetime(2024, 2, 1, 11, 30, tzinfo=UTC),
    datetime(2024, 2, 3, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 2, 2, 12, tzinfo=UTC),
]
DATATYPES = {"amount": "FP64", "kind": "BYTES", "at": "BYTES"}


def asked(place: Place) -> TrainRequest:
    recipe = {"estimator": "sklearn.linear_model.LogisticRegression", "transformers": STEPS, "seed": 7}
    data = data_of(features=FEATURES)
    return request_of(place.store, data=data, training=Training.model_validate({"recipe": recipe}))


@pytest.fixture
def place(versitygw: Versitygw) -> Place:
    return Place(versitygw).write(events())


def body(rows: dict[str, list[Any]], **members: Any) -> dict[str, Any]:
    tensors = [
        {"name": name, "shape": [len(values)], "datatype": DATATYPES[name], "data": values}
        for name, values in rows.items()
    ]
    return {"inputs": tensors, **members}


def test_a_run_its_record_and_a_server_that_answers_likewise(place: Place, versitygw: Versitygw, start: Start) -> None:
    result = place.run(asked(place))
    assert result.reason == "Succeeded", result.message
    assert "scikit-learn serves it" not in result.message
    told = place.record(result)["training"]["pipeline"]
    assert told["digest"].startswith("sha256:")
    assert [step["name"] for step in told["steps"]] == ["clock", "cut", "risk"]
    assert told["indicators"] == ["kind"]
    assert place.record(place.run(asked(place).model_copy(update={"run_uid": "again"})))["training"]["pipeline"] == told
    files = place.files(result)
    assert "model.onnx" in files

    # What training computes, by scikit-learn, of the same rows read as a table.
    signature = Signature.model_validate_json(files["signature.json"])
    assert [feature.type for feature in signature.features] == ["Number", "Category", "Time"]
    table = {
        "amount": pa.array(ROWS["amount"], pa.float64()),
        "kind": pa.array(ROWS["kind"], pa.string()),
        "at": pa.array(MOMENTS, pa.timestamp("us", "UTC")),
    }
    pipeline = load_pipeline(files[MODEL_FILE], signature.estimator)
    expected = probabilities(pipeline, encode.matrix(table, signature.features))

    assert result.artifact is not None
    published = Published(versitygw, place.store, result.artifact.digest)
    capture = published.capture(flush_seconds=3600)
    running = start(published.request(time_column="at", key="id", capture=capture)).ready()
    path = f"/v2/models/{MODEL}/infer"
    with running.client() as client:
        inputs = client.get(f"/v2/models/{MODEL}").json()["inputs"]
        assert [one["datatype"] for one in inputs] == ["FP64", "BYTES", "BYTES"]

        def answered(document: dict[str, Any]) -> Any:
            answer = client.post(path, json=document)
            assert answer.status_code == 200, answer.text
            return answer.json()["outputs"][0]["data"]

        np.testing.assert_allclose(answered(body(ROWS, id="all")), expected, rtol=0, atol=1e-9)
        for row in range(4):
            one = {name: values[row : row + 1] for name, values in ROWS.items()}
            np.testing.assert_allclose(answered(body(one, id=f"r{row}")), expected[row : row + 1], rtol=0, atol=1e-9)
        whole = body(ROWS, id="whole")
        whole["inputs"][2] |= {"datatype": "INT64", "data": [times.from_text(text) for text in ROWS["at"]]}
        np.testing.assert_allclose(answered(whole), expected, rtol=0, atol=1e-9)
        wrong = client.post(path, json=body({**ROWS, "at": ["soon"] * 4}))
        assert wrong.status_code == 422
        assert "tensor at" in wrong.json()["error"]
        assert "is no ISO 8601 time" in wrong.json()["error"]
        missing = client.post(path, json=body({name: ROWS[name] for name in ("amount", "kind")}))
        assert missing.status_code == 400
        assert "tensor at is missing" in missing.json()["error"]
    running.terminate()
    assert running.exit_code() == 0

    bucket = Bucket.open(capture.s3)
    (info,) = bucket.list(captures("demo", MODEL, 3))
    kept = pq.read_table(io.BytesIO(bucket.get(info.key)))
    assert kept.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert kept["at"].to_pylist()[:4] == kept["truekeep.event_time"].to_pylist()[:4]
    assert kept["at"].to_pylist()[:4] == MOMENTS
    assert kept["amount"].to_pylist()[:4] == ROWS["amount"]  # raw: neither clipped nor filled
    assert kept["kind"].to_pylist()[:4] == ROWS["kind"]

    candidate = start(published.request(revision=4, time_column="at", key="id")).ready()
    replayed = rehearse(
        RehearseRequest.model_validate(
            {"namespace": "demo", "model": MODEL, "candidate": "c", "url": candidate.url, "live_revision": 3,
             "capture": capture.s3, "rows": 1000, "waitSeconds": 20}
        ),
        bucket,
    )  # fmt: skip
    assert (replayed.rehearsal.rows, replayed.rehearsal.failed) == (12, 0), replayed.rehearsal
    assert float(replayed.rehearsal.prediction_shift) == 0

    reference = Profile.model_validate_json(files["profile.json"])
    told_of = reference.column("at")
    assert told_of is not None
    assert (told_of.rows, told_of.nulls, told_of.values) == (reference.rows, 0, reference.rows)
    first, last = (round(one.timestamp() * 1000) for one in (START, START + timedelta(days=3650)))
    name = parse_capture_file(info.key)
    assert name is not None
    file = CaptureFile(info.key, info.size, name)
    window = count(bucket, [file], reference, start=first, end=last, skipped=Skipped()).profile()
    seen = window.column("at")
    assert seen is not None
    assert (seen.rows, seen.nulls, seen.invalid, seen.values) == (12, 0, 0, 12)


def test_an_artifact_with_steps_is_taken_by_another_truekeep(place: Place) -> None:
    made = place.run(asked(place))
    assert made.artifact is not None
    other = Training.model_validate({"import": {"s3": place.store.dump(), "digest": made.artifact.digest}})
    again = asked(place).model_copy(update={"training": other, "run_uid": "elsewhere"})
    result = place.run(again)
    assert result.reason == "Succeeded", result.message
    assert result.artifact is not None
    assert result.artifact.digest == made.artifact.digest
    features = [one.model_copy(update={"type": "Category"}) if one.name == "at" else one for one in again.data.features]
    wrong = again.model_copy(update={"data": again.data.model_copy(update={"features": features}), "run_uid": "wrong"})
    refused = place.run(wrong)
    assert refused.reason == "ImportInvalid"
    assert "at is declared a Category, and the imported model takes a Time" in refused.message
