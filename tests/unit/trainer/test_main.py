"""The pod as it is started: request in, progress on stdout, result in the termination log, exit code. Real flights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.conftest import Versitygw
from tests.unit.trainer import flights
from tests.unit.trainer.lake import csv_of, parquet, request_of
from truekeep.api.common import S3Location
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import TrainRequest, complete_data
from truekeep.contract.results import TrainResult
from truekeep.features.encode import Encoder
from truekeep.features.trust import load_pipeline
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket
from truekeep.trainer.data.dataset import load
from truekeep.trainer.recipe.pipeline import probabilities

EVALUATION = {
    "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.60"}],
    "slices": [{"name": "by-origin", "column": "origin", "metric": "roc_auc", "minimum": "0.55", "minRows": 500}],
    "decision": {"rule": "RecallAtFalsePositiveRate", "value": "0.1"},
    "champion": {"metric": "roc_auc"},
    "refit": "OnAllRows",
}


class Pod:
    """Starts the trainer as its image does, with the credentials mounted."""

    def __init__(self, versitygw: Versitygw, folder: Path) -> None:
        self.log = folder / "termination-log"
        self.environment = {
            **versitygw.environment(),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "operator",
            "TRUEKEEP_TERMINATION_LOG": str(self.log),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, request: TrainRequest | str, **environment: str) -> subprocess.Popen[str]:
        text = request if isinstance(request, str) else request.model_dump_json(by_alias=True)
        return subprocess.Popen(
            [sys.executable, "-m", "truekeep.trainer"],
            env={**self.environment, "TRUEKEEP_REQUEST": text, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, request: TrainRequest | str, **environment: str) -> tuple[int, str, str]:
        process = self.start(request, **environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def result(self) -> TrainResult:
        content = self.log.read_bytes()
        assert len(content) <= 4096
        return TrainResult.model_validate_json(content)


@pytest.fixture
def pod(versitygw: Versitygw, tmp_path: Path) -> Pod:
    return Pod(versitygw, tmp_path)


def put(bucket: Bucket, folder: str, table: pa.Table, parts: int) -> None:
    """In so many files, every third of them as CSV."""
    size = -(-table.num_rows // parts)
    for number in range(parts):
        part = table.slice(number * size, size)
        name, content = (".csv", csv_of(part)) if number % 3 == 2 else (".parquet", parquet(part))
        bucket.put(f"{folder}/{number:03d}{name}", content)


@pytest.fixture
def lake(versitygw: Versitygw) -> S3Location:
    """Three weeks of January: flights, arrivals and weather. Returns the store, in the same bucket."""
    everything = versitygw.location()
    bucket = Bucket.open(everything)
    departed, arrived, weather = flights.between(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 22, tzinfo=UTC))
    put(bucket, "flights", departed, 5)
    put(bucket, "arrivals", arrived, 4)
    put(bucket, "weather", weather.select(["observed_at", "origin", *flights.WEATHER]), 1)
    return versitygw.location("models/", bucket=bucket.name)


def flight_request(store: S3Location, **changes: Any) -> TrainRequest:
    bucket = store.uri.split("/")[2]
    request = request_of(
        store,
        estimator="sklearn.ensemble.HistGradientBoostingClassifier",
        parameters={"max_iter": "40"},
        evaluation=EVALUATION,
        **changes,
    )
    return request.model_copy(update={"data": complete_data(flights.data_of(bucket), store)})


def test_flights_are_trained_the_same_in_any_process(pod: Pod, lake: S3Location) -> None:
    request = flight_request(lake, run_uid="first")
    code, out, err = pod.run(request, PYTHONHASHSEED="1")
    assert code == 0, out + err
    assert err == ""
    first = pod.result()
    assert first.reason == "Succeeded"
    assert first.data is not None
    assert first.artifact is not None
    assert (first.data.objects, first.data.replayable) == (10, "False")
    assert first.data.rows > 15_000
    assert first.data.unlabelled > 50, "cancelled flights never get a label"
    assert first.data.unripe > 500, "nor do those of the last day have one that counts"
    assert {gate.result for gate in first.gates} == {"Passed"}
    assert "joined weather as of each event" in out
    assert out.rstrip().splitlines()[-1].endswith(first.message)
    assert out.splitlines()[0].endswith("run late-1 of shop/late, 1 threads")

    code, _, _ = pod.run(flight_request(lake, run_uid="second"), PYTHONHASHSEED="2", OMP_NUM_THREADS="2")
    assert code == 0
    again = pod.result()
    assert again.artifact == first.artifact
    assert again.metrics == first.metrics
    assert again.cut_off == first.cut_off

    # What a server would load answers as the trainer's own reading of the data says.
    files = artifacts.read(Bucket.open(lake), first.artifact.digest)
    signature = Signature.model_validate_json(files["signature.json"])
    names = [feature.name for feature in signature.features]
    assert names == [feature.name for feature in request.data.features]
    model = load_pipeline(files["model.skops"], signature.estimator)
    dataset = load(request.data, [], Bucket.open, 0, lambda _: None)
    assert len(dataset) == first.data.rows
    row = {want.name: values[7] for want, values in dataset.columns.items()}
    plain = {name: value.as_py() if hasattr(value, "as_py") else float(value) for name, value in row.items()}
    matrix = Encoder(signature.features).encode({name: [plain[name]] for name in names}, 1)
    assert 0 < probabilities(model, matrix)[0] < 1


def test_a_second_pod_of_a_run_is_done_at_once(pod: Pod, lake: S3Location) -> None:
    request = flight_request(lake).model_copy(update={"data": request_of(lake).data})  # there are no such rows
    assert pod.run(request)[0] == 3
    first = pod.result()
    assert first.reason == "DataInvalid"
    assert "no Parquet or CSV object lies below s3://" in first.message
    code, out, _ = pod.run(request)
    assert code == 3
    assert pod.result() == first
    assert "is done already" in out
    assert "read " not in out


def test_a_store_that_cannot_be_reached(pod: Pod, lake: S3Location) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = lake.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})
    code, out, _ = pod.run(request_of(store))
    assert code == 4
    assert pod.result().reason == "StoreUnreachable"
    assert "is the store running" in out


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"namespace": "x"}'])
def test_what_is_no_request_is_refused(pod: Pod, text: str) -> None:
    code, _, err = pod.run(text)
    assert code == 3
    assert "TRUEKEEP_REQUEST holds no training request" in err
    assert not pod.log.exists()


def test_a_termination_log_that_cannot_be_written_changes_nothing_else(pod: Pod, lake: S3Location) -> None:
    code, out, err = pod.run(request_of(lake), TRUEKEEP_TERMINATION_LOG="/nonexistent/log")
    assert code == 3
    assert "DataInvalid: no Parquet or CSV object" in out
    assert "could not write /nonexistent/log" in err


def test_it_ends_when_it_is_told_to(pod: Pod, lake: S3Location) -> None:
    """Also as process 1 of a container, which has no default for SIGTERM: while it waits for a store that is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = lake.model_copy(update={"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        process = pod.start(request_of(store))
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143
    process.communicate()
