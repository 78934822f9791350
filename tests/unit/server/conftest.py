"""A fitted pipeline as an artifact in a real store, and a real server process in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skops import io as skops_io

from tests.unit.conftest import Versitygw
from truekeep.api.capture import Capture
from truekeep.contract.artifact import Example, Signature, SignatureFeature
from truekeep.contract.layout import MODEL_FILE, ONNX_FILE, SIGNATURE
from truekeep.contract.requests import REQUEST_ENV, TERMINATION_LOG_ENV, ServeRequest
from truekeep.features.encode import Encoder
from truekeep.server.limits import LIMITS_ENV
from truekeep.server.process import GRPC_PORT_ENV, PORT_ENV
from truekeep.storage import artifacts
from truekeep.trainer.onnx.graph import convert

MODEL = "flight-delay"
LOGISTIC = "sklearn.linear_model.LogisticRegression"
FEATURES = [
    SignatureFeature(name="hour", type="Number"),
    SignatureFeature(name="distance", type="Number", nulls="Refuse"),
    SignatureFeature(name="carrier", type="Category", categories=["AA", "B6", "UA"]),
    SignatureFeature(name="gate", type="Category", categories=["1", "10", "2"]),
]
NAMES = [feature.name for feature in FEATURES]
ROWS: dict[str, list[Any]] = {
    "hour": [7.0, 23.5, None, 0.0, 12.0],
    "distance": [100.0, 2475.0, 733.0, 5.0, 1000.0],
    "carrier": ["AA", "UA", "B6", None, "ZZ"],
    "gate": ["1", "10", None, "2", "99"],
}


def fit(seed: int = 5, rows: int = 500) -> Pipeline:
    """A logistic regression on four columns: hour, distance, carrier, gate."""
    random = np.random.default_rng(seed)
    x = np.column_stack(
        [
            random.uniform(0, 24, rows),
            random.uniform(0, 3000, rows),
            random.integers(-1, 3, rows).astype(float),
            random.integers(-1, 3, rows).astype(float),
        ]
    )
    y = (x[:, 0] / 8 + x[:, 2] / 2 + random.normal(size=rows) > 2).astype(np.int64)
    x[::9, 0] = np.nan
    x[::11, 2] = np.nan
    number = Pipeline([("impute", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler())])
    category = Pipeline([("impute", SimpleImputer(strategy="constant", fill_value=-2.0)), ("one", _one_hot())])
    prepare = ColumnTransformer([("number", number, [0, 1]), ("category", category, [2, 3])])
    return Pipeline([("prepare", prepare), ("model", LogisticRegression())]).fit(x, y)


def _one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False)


def signature_of(pipeline: Any, **changes: Any) -> Signature:
    """The signature with examples as the pipeline answers them."""
    matrix = Encoder(FEATURES).encode(ROWS, 5)
    probabilities = pipeline.predict_proba(matrix)[:, 1]
    examples = [
        Example(inputs={name: ROWS[name][row] for name in NAMES}, probability=float(probabilities[row]))
        for row in range(5)
    ]
    signature = Signature(estimator=LOGISTIC, features=FEATURES, cut_off=0.4, examples=examples)
    return signature.model_copy(update=changes)


def files_of(pipeline: Any, signature: Signature, *, onnx: bool = False) -> dict[str, bytes]:
    """An artifact's files."""
    content = json.dumps(signature.model_dump(mode="json", by_alias=True)).encode()
    files = {MODEL_FILE: skops_io.dumps(pipeline), SIGNATURE: content}
    return {**files, ONNX_FILE: convert(pipeline, len(FEATURES))} if onnx else files


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return fit()


@dataclass
class Running:
    """A server process on the loopback."""

    process: subprocess.Popen[bytes]
    log: Path
    termination: Path
    port: int = 0
    url: str = field(default="", init=False)
    grpc: str = field(default="", init=False)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def logged(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["message"] == message]

    def until(self, what: Callable[[], Any], seconds: float = 30, ended: bool = False) -> Any:
        """Wait for something to be true; the time is only a bound for a test that fails."""
        end = time.monotonic() + seconds
        while not (result := what()):
            assert time.monotonic() < end, (
                f"waited {seconds} s in vain; the server said:\n{self.log.read_text()[-3000:]}"
            )
            assert ended or self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)
        return result

    def listen(self) -> Running:
        self.port = self.until(lambda: self.logged("listening"))[0]["port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.grpc = f"127.0.0.1:{self.logged('listening')[0]['grpc_port']}"
        return self

    def ready(self) -> Running:
        self.listen()
        self.until(lambda: self.logged("ready"))
        return self

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric."""
        with self.client() as client:
            text = client.get("/metrics").text
        inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
        found = re.search(rf"^{re.escape(name + (f'{{{inner}}}' if inner else ''))} (\S+)$", text, re.M)
        assert found, f"no metric {name} {inner} in:\n{text}"
        return float(found[1])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, seconds: float = 40) -> int:
        return self.process.wait(seconds)


Start = Callable[..., Running]


@dataclass(frozen=True)
class Published:
    """An artifact that lies in the store."""

    store: Versitygw
    location: Any
    digest: str

    def request(self, **changes: Any) -> ServeRequest:
        """What the operator would ask of a pod."""
        fixed: dict[str, Any] = {
            "namespace": "demo",
            "model": MODEL,
            "revision": 3,
            "run": f"{MODEL}-3",
            "artifact_digest": self.digest,
            "store": self.location,
            "time_column": "scheduled_at",
            "key": "flight_id",
        }
        return ServeRequest(**{**fixed, **changes})

    def capture(self, bucket: str | None = None, **changes: Any) -> Capture:
        """Capture into a bucket of its own."""
        return Capture(s3=self.store.location("captures/", bucket=bucket), **{"flush_seconds": 1, **changes})


@pytest.fixture
def publish(versitygw: Versitygw) -> Callable[[dict[str, bytes]], Published]:
    def publish(files: dict[str, bytes]) -> Published:
        bucket = versitygw.bucket("models/")
        artifact = artifacts.write(bucket, files)
        return Published(versitygw, versitygw.location("models/", bucket=bucket.name), artifact.digest)

    return publish


@pytest.fixture
def published(publish: Callable[[dict[str, bytes]], Published], pipeline: Pipeline) -> Published:
    return publish(files_of(pipeline, signature_of(pipeline)))


# Soon at the end; and no connection ends under a client that takes seconds to write one request.
QUICK = {"drain_linger_seconds": 0.5, "drain_idle_seconds": 2, "grpc_age_seconds": 30}


@contextlib.contextmanager
def _starter(folder: Path, environment: dict[str, str]) -> Iterator[Start]:
    started: list[Running] = []

    def start(
        request: ServeRequest | str, limits: dict[str, Any] | None = None, more: dict[str, str] | None = None
    ) -> Running:
        text = request if isinstance(request, str) else json.dumps(request.dump())
        log = folder / f"server-{len(started)}.log"
        termination = folder / f"termination-{len(started)}"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "truekeep.server"],
                env={
                    **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "PYTHONPATH": os.pathsep.join(["operator", os.environ.get("PYTHONPATH", "")]),
                    REQUEST_ENV: text,
                    PORT_ENV: "0",
                    GRPC_PORT_ENV: "0",
                    LIMITS_ENV: json.dumps({**QUICK, **(limits or {})}),
                    TERMINATION_LOG_ENV: str(termination),
                    **environment,
                    **(more or {}),
                },
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        started.append(Running(process, log, termination))
        return started[-1]

    try:
        yield start
    finally:
        for running in started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait(10)


@pytest.fixture
def start(versitygw: Versitygw, tmp_path: Path) -> Iterator[Start]:
    """Start server processes; they are ended with the test."""
    with _starter(tmp_path, versitygw.environment()) as starter:
        yield starter


@pytest.fixture(scope="module")
def shared(_store: Versitygw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One ready server for all tests of a module that only ask it things."""
    patch = pytest.MonkeyPatch()
    for name, value in _store.environment().items():
        patch.setenv(name, value)
    model = fit()
    bucket = _store.bucket("models/")
    digest = artifacts.write(bucket, files_of(model, signature_of(model), onnx=True)).digest
    published = Published(_store, _store.location("models/", bucket=bucket.name), digest)
    try:
        with _starter(tmp_path_factory.mktemp("shared"), _store.environment()) as starter:
            yield starter(published.request()).ready()
    finally:
        patch.undo()


def tensor(name: str, values: list[Any], datatype: str | None = None, **changes: Any) -> dict[str, Any]:
    """A column as a tensor of the protocol."""
    if datatype is None:
        datatype = "FP64" if name in ("hour", "distance") else "BYTES"
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values, **changes}


def body(rows: dict[str, list[Any]] | None = None, **members: Any) -> dict[str, Any]:
    """An infer request."""
    return {"inputs": [tensor(name, values) for name, values in (rows or ROWS).items()], **members}
