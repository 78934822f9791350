"""One table: an empty echo of the same bytes, ours (with and without capture), hand-written FastAPI, MLServer.

`python -m tests.bench.serving [--seconds 5] [--only ours,echo] [--rows 1,100] [--connections 1,16,64]`. The server
runs on the first core, `wrk` on the second; the peers in a virtual environment of their own (`--peers`, made where it
is missing). Compare the ratios: the rates themselves are the machine's. On a machine that others use, the server's CPU
time a request says more than the rates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.conftest import Versitygw, free_port, running_store
from truekeep.api.capture import Capture
from truekeep.api.data import Feature
from truekeep.api.training import Recipe
from truekeep.contract.artifact import Signature
from truekeep.contract.requests import REQUEST_ENV, ServeRequest
from truekeep.features import encode
from truekeep.storage import artifacts
from truekeep.trainer import bundle, pipeline

HERE = Path(__file__).parent
PEERS = HERE / "peers"
MODEL, INFER, READY = "bench", "/v2/models/bench/infer", "/v2/health/ready"
NUMBERS = [f"number_{position}" for position in range(10)]
CATEGORIES = {"carrier": 16, "origin": 3, "dest": 100, "plane": 30}
CONTENDERS = ("echo", "ours", "ours, capture 100 %", "FastAPI", "MLServer", "MLServer, adaptive batching")
TRAINED_ROWS = 4000


@dataclass(frozen=True)
class Measured:
    """One cell of the table. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    failed: int
    cpu: float  # microseconds of the server's CPU a request: hardly disturbed by others at work


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


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, pid: int, core: str, body: Path, connections: int, seconds: float) -> Measured:
    """wrk, after a short warm-up."""
    before = 0.0
    for length in (1.0, seconds):
        before = cpu_seconds(pid)
        done = subprocess.run(
            ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{length:g}s", "-s", str(HERE / "wrk.lua"),
             f"http://127.0.0.1:{port}{INFER}"],
            env={**os.environ, "BODY": str(body)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    return Measured(
        rate=found["requests"] / found["seconds"],
        p50=found["p50"],
        p99=found["p99"],
        failed=found["bad"] + found["lost"],
        cpu=1e6 * (cpu_seconds(pid) - before) / max(found["requests"], 1),
    )


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


@dataclass
class Bench:
    """What all contenders share."""

    folder: Path
    store: Versitygw
    cores: tuple[str, str]
    peers: Path
    estimator: str
    port: int = 0

    def contender(self, name: str, body: bytes) -> contextlib.AbstractContextManager[int]:
        """A running server that answers on `port`."""
        log = self.folder / "log"
        if name == "echo":
            (self.folder / "answer").write_bytes(self._answer(body))
        self.port = free_port()
        if name.startswith("ours"):
            return self._ours(name.endswith("%"), log)
        uvicorn = [
            "-m",
            "uvicorn",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--no-access-log",
            "--log-level",
            "error",
        ]
        if name == "echo":
            command = [sys.executable, *uvicorn, "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
            environment = {"ECHO_ANSWER": str(self.folder / "answer")}
            return server([*command, "--app-dir", str(PEERS), "echo:app"], self.cores[0], self.port, environment, log)
        model = self._peer_model()
        python = str(peers_python(self.peers))
        if name == "FastAPI":
            command = [python, *uvicorn, "--app-dir", str(PEERS), "handwritten:app"]
            return server(command, self.cores[0], self.port, {"PEER_MODEL": str(model), "OMP_NUM_THREADS": "1"}, log)
        return self._mlserver(name.endswith("batching"), model, log)

    def _ours(self, capture: bool, log: Path) -> contextlib.AbstractContextManager[int]:
        bucket = self.store.bucket("models/")
        artifact = artifacts.write(bucket, artifact_files(self.estimator))
        captured = Capture(s3=self.store.location("captures/")) if capture else None
        request = ServeRequest(
            namespace="bench", model=MODEL, revision=1, run="bench-1", artifact_digest=artifact.digest,
            store=self.store.location("models/", bucket=bucket.name), time_column="at", key="id", capture=captured,
            connection_max_age_seconds=3600,
        )  # fmt: skip
        environment = {
            **self.store.environment(),
            REQUEST_ENV: json.dumps(request.dump()),
            "TRUEKEEP_SERVER_PORT": str(self.port),
            "TRUEKEEP_SERVER_GRPC_PORT": str(free_port()),
            "TRUEKEEP_TERMINATION_LOG": str(self.folder / "termination"),
            "TRUEKEEP_SERVER_LIMITS": json.dumps({"drain_linger_seconds": 0, "drain_idle_seconds": 0.5}),
            "PYTHONPATH": "operator",
        }
        command = [sys.executable, "-m", "truekeep.server"]
        return server(command, self.cores[0], self.port, environment, log)

    def _answer(self, body: bytes) -> bytes:
        """Ours, for the echo to repeat."""
        self.port = free_port()
        with self._ours(False, self.folder / "log"):
            return post(self.port, body)

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

    def _mlserver(self, batching: bool, model: Path, log: Path) -> contextlib.AbstractContextManager[int]:
        home = self.folder / "mlserver"
        home.mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            "http_port": self.port, "grpc_port": free_port(), "metrics_port": free_port(), "host": "127.0.0.1",
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
        command = [str(self.peers / "bin" / "mlserver"), "start", str(home)]
        return server(command, self.cores[0], self.port, {"OMP_NUM_THREADS": "1"}, log)


def body_for(name: str, body: bytes) -> bytes:
    """MLServer is asked for a DataFrame and for probabilities; all else is the same."""
    if not name.startswith("MLServer"):
        return body
    document = json.loads(body)
    return json.dumps(
        {**document, "parameters": {"content_type": "pd"}, "outputs": [{"name": "predict_proba"}]}
    ).encode()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--only", default=",".join(CONTENDERS).replace(", ", "; "), help="contenders, ; for the comma within a name"
    )
    parser.add_argument("--rows", default="1,100")
    parser.add_argument("--connections", default="1,16,64")
    parser.add_argument("--cores", default="0,1", help="the server's, the load's")
    parser.add_argument("--peers", type=Path, default=Path("build/bench/peers"))
    parser.add_argument("--estimator", default="sklearn.linear_model.LogisticRegression")
    arguments = parser.parse_args()
    names = [name.replace("; ", ", ") for name in arguments.only.split(",")]
    connections = [int(number) for number in arguments.connections.split(",")]
    first, second = arguments.cores.split(",")
    with tempfile.TemporaryDirectory() as folder, running_store(Path(folder) / "store") as store:
        os.environ.update(store.environment(), AWS_EC2_METADATA_DISABLED="true")
        bench = Bench(Path(folder), store, (first, second), arguments.peers.absolute(), arguments.estimator)
        for rows in [int(number) for number in arguments.rows.split(",")]:
            table: dict[tuple[str, int], Measured] = {}
            for name in names:
                body = body_for(name, request_of(rows))
                path = bench.folder / "body"
                path.write_bytes(body)
                with bench.contender(name, body) as pid:
                    post(bench.port, body)
                    for number in connections:
                        table[name, number] = load(bench.port, pid, second, path, number, arguments.seconds)
                        _say(rows, name, number, table[name, number], table.get(("echo", number)))
    print(f"load average at the end: {os.getloadavg()[0]:.1f}; more than 2 means that others were at work")


def _say(rows: int, name: str, connections: int, found: Measured, limit: Measured | None) -> None:
    share = (
        f"{100 * found.rate / limit.rate:5.1f} % of the echo, {100 * limit.cpu / found.cpu:5.1f} % by CPU"
        if limit
        else ""
    )
    failed = f"  {found.failed} FAILED" if found.failed else ""
    print(
        f"{rows:4d} rows {connections:3d} connections  {name:28s} {found.rate:9,.0f} rps  p50 {found.p50:8.3f} ms  "
        f"p99 {found.p99:8.3f} ms  {found.cpu:8.1f} µs CPU  "
        f"{share}{failed}",
        flush=True,
    )


if __name__ == "__main__":
    main()
