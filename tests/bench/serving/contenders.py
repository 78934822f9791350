"""The servers that are compared: each a process on one core, ready to be asked at its port."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.conftest import Versitygw, free_port
from truekeep.api.capture import Capture
from truekeep.api.data import Feature
from truekeep.api.training import Recipe
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import REQUEST_ENV, SPOOL_DIR_ENV, ServeRequest
from truekeep.features import encode
from truekeep.storage import artifacts
from truekeep.trainer.recipe import bundle, pipeline

HERE = Path(__file__).parent
PEERS = HERE / "peers"
MODEL, INFER, READY = "bench", "/v2/models/bench/infer", "/v2/health/ready"
NUMBERS = [f"number_{position}" for position in range(10)]
CATEGORIES = {"carrier": 16, "origin": 3, "dest": 100, "plane": 30}
ECHO, OURS, CAPTURING = "echo", "ours", "ours, capture 100 %"
FASTAPI, PLAIN, BATCHING = "FastAPI", "MLServer", "MLServer, adaptive batching"
PEERS_OF_OURS = (FASTAPI, PLAIN, BATCHING)
CONTENDERS = (ECHO, OURS, CAPTURING, *PEERS_OF_OURS)
TRAINED_ROWS = 4000


def columns(rows: int, seed: int = 1) -> dict[str, list[Any]]:
    """Ten numbers and four categories of text, some null, as a request gives them."""
    random = np.random.default_rng(seed)
    made: dict[str, list[Any]] = {}
    for name in NUMBERS:
        made[name] = [round(float(value), 3) for value in random.normal(size=rows) * 100]
    for name, count in CATEGORIES.items():
        made[name] = [f"{name[:2].upper()}{code:02d}" for code in random.integers(0, count, rows)]
    made["number_3"] = [None if row % 7 == 6 else value for row, value in enumerate(made["number_3"])]
    return made


def request_of(rows: int) -> bytes:
    """A body as clients write it."""
    inputs = [
        {"name": name, "shape": [rows], "datatype": "FP64" if name in NUMBERS else "BYTES", "data": values}
        for name, values in columns(rows, seed=2).items()
    ]
    return json.dumps({"id": "bench", "inputs": inputs}).encode()


def artifact_files(estimator: str) -> dict[str, bytes]:
    """Fit, and bundle as the trainer does."""
    import pyarrow as pa

    given = columns(TRAINED_ROWS)
    labels = np.array([a + (b == "CA03") * 50 > 0 for a, b in zip(given["number_0"], given["carrier"], strict=True)])
    declared = [Feature(name=name, type="Number" if name in NUMBERS else "Category") for name in given]
    table: dict[str, Any] = {
        name: np.array(values, dtype=np.float64) if name in NUMBERS else pa.array(values, pa.string())
        for name, values in given.items()
    }
    features = bundle.signature_features(declared, table)
    matrix = encode.matrix(table, features)
    fitted = pipeline.fit(Recipe(estimator=estimator), features, matrix, labels.astype(np.int64), threads=1)
    draft = Signature(estimator=estimator, features=features, cut_off=0.5, examples=[])
    return bundle.files(fitted.pipeline, draft, table, fitted.probabilities(matrix), matrix)


@contextlib.contextmanager
def server(command: list[str], core: str, port: int, environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """A process on one core, ready."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command], env={**os.environ, **environment}, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 90
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(command)} did not get ready:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{READY}", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (404, 405)  # a peer without such a page, but up
    except OSError:
        return False


def post(port: int, body: bytes) -> bytes:
    """One answer."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{INFER}", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        content: bytes = answer.read()
    return content


def peers_python(folder: Path) -> Path:
    """Python of the peers' environment, made where it is missing."""
    python = folder / "bin" / "python"
    if not (folder / "bin" / "mlserver").exists():
        print(f"making {folder} (a minute)", flush=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        packages = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "scikit-learn>=1.9,<1.10", "pandas"]
        subprocess.run(
            [uv, "pip", "install", "-q", *packages], env={**os.environ, "VIRTUAL_ENV": str(folder)}, check=True
        )
    return python


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    name: str
    port: int
    pid: int

    def metrics(self) -> dict[str, float]:
        """Of ours: what it counts, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] not in ("", "#")}

    def settle(self, seconds: float = 30) -> None:
        """Of one that captures: wait until all rows are written, so that the next measurement is not disturbed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.metrics()
            if not any(value for name, value in found.items() if name in _BUFFERED):
                return
            time.sleep(0.2)
        raise SystemExit(f"{self.name}: captured rows were not written within {seconds:.0f} s")


_BUFFERED = ("truekeep_server_capture_buffered_rows", "truekeep_server_capture_spooled_rows")


@dataclass
class Bench:
    """Starts contenders. `cores`: the server's, and the load's and the store's."""

    folder: Path
    store: Versitygw
    cores: tuple[str, str]
    peers: Path
    estimator: str
    _started: int = field(default=0, init=False)

    @contextlib.contextmanager
    def start(self, name: str, answer: bytes = b"") -> Iterator[Running]:
        """A contender. `answer`: what the echo repeats."""
        self._started += 1
        home = self.folder / f"{self._started}"
        home.mkdir()
        port = free_port()
        command, environment = self._how(name, port, home, answer)
        with server(command, self.cores[0], port, environment, home / "log") as pid:
            yield Running(name, port, pid)

    def _how(self, name: str, port: int, home: Path, answer: bytes) -> tuple[list[str], dict[str, str]]:
        """Command and environment."""
        if name in (OURS, CAPTURING):
            return self._ours(name == CAPTURING, port, home)
        uvicorn = [
            "-m",
            "uvicorn",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--no-access-log",
            "--log-level",
            "error",
        ]
        if name == ECHO:
            (home / "answer").write_bytes(answer)
            fast = ["--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
            command = [sys.executable, *uvicorn, *fast, "--app-dir", str(PEERS), "echo:app"]
            return command, {"ECHO_ANSWER": str(home / "answer")}
        python, model = str(peers_python(self.peers)), self._peer_model()
        if name == FASTAPI:
            command = [python, *uvicorn, "--app-dir", str(PEERS), "handwritten:app"]
            return command, {"PEER_MODEL": str(model), "OMP_NUM_THREADS": "1"}
        return self._mlserver(name == BATCHING, port, home, model)

    def _ours(self, capture: bool, port: int, home: Path) -> tuple[list[str], dict[str, str]]:
        bucket = self.store.bucket("models/")
        artifact = artifacts.write(bucket, artifact_files(self.estimator))
        captured = Capture(s3=self.store.location("captures/"), flush_seconds=5) if capture else None
        request = ServeRequest(
            namespace="bench", model=MODEL, revision=1, run="bench-1", artifact_digest=artifact.digest,
            store=self.store.location("models/", bucket=bucket.name), time_column="at", key="id", capture=captured,
            connection_max_age_seconds=3600,
        )  # fmt: skip
        spool = home / "spool"
        spool.mkdir()
        environment = {
            **self.store.environment(),
            REQUEST_ENV: json.dumps(request.dump()),
            SPOOL_DIR_ENV: str(spool),
            "TRUEKEEP_SERVER_PORT": str(port),
            "TRUEKEEP_SERVER_GRPC_PORT": str(free_port()),
            "TRUEKEEP_TERMINATION_LOG": str(home / "termination"),
            "TRUEKEEP_SERVER_LIMITS": json.dumps({"drain_linger_seconds": 0, "drain_idle_seconds": 0.5}),
            "PYTHONPATH": "operator",
        }
        return [sys.executable, "-m", "truekeep.server"], environment

    def _peer_model(self) -> Path:
        model = self.folder / "model.joblib"
        if not model.exists():
            given = columns(TRAINED_ROWS)
            labels = [int(a + (b == "CA03") * 50 > 0) for a, b in zip(given["number_0"], given["carrier"], strict=True)]
            rows = self.folder / "rows.json"
            rows.write_text(json.dumps(
                {"columns": given, "numbers": NUMBERS, "categories": list(CATEGORIES), "labels": labels}
            ))  # fmt: skip
            python = str(peers_python(self.peers))
            subprocess.run([python, str(PEERS / "fit.py"), str(rows), str(model)], check=True)
        return model

    def _mlserver(self, batching: bool, port: int, home: Path, model: Path) -> tuple[list[str], dict[str, str]]:
        settings: dict[str, Any] = {
            "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1",
            "parallel_workers": 0, "debug": False, "access_log": False,
        }  # fmt: skip
        (home / "settings.json").write_text(json.dumps(settings))
        wanted: dict[str, Any] = {
            "name": MODEL,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(model), "content_type": "pd"},
        }
        if batching:
            wanted.update(max_batch_size=64, max_batch_time=0.005)
        (home / "model-settings.json").write_text(json.dumps(wanted))
        return [str(self.peers / "bin" / "mlserver"), "start", str(home)], {"OMP_NUM_THREADS": "1"}


def body_for(name: str, body: bytes) -> bytes:
    """MLServer is asked for a DataFrame and for probabilities; all else is the same."""
    if not name.startswith("MLServer"):
        return body
    document = json.loads(body)
    return json.dumps(
        {**document, "parameters": {"content_type": "pd"}, "outputs": [{"name": "predict_proba"}]}
    ).encode()
