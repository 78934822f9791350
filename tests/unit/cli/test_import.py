"""`truekeep import` and `truekeep serve`, as a person calls them; the store is a real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import joblib
import pytest
import yaml
from click.testing import Result
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner

from tests.unit.conftest import Versitygw, free_port
from tests.unit.trainer.elsewhere import answers, fitted, frame
from truekeep.cli.main import app
from truekeep.contract import layout
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket


class Desk:
    """A folder with a trained model and a sample of rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = fitted(RandomForestClassifier(5, random_state=0))
        joblib.dump(self.model, folder / "model.joblib")
        frame().to_parquet(folder / "rows.parquet")

    def run(self, *arguments: str, out: str = "out", **environment: str) -> Result:
        given = [str(self.folder / "model.joblib"), "--sample", str(self.folder / "rows.parquet")]
        return CliRunner().invoke(app, ["import", *given, "--out", str(self.folder / out), *arguments], env=environment)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def packaged(desk: Desk) -> Path:
    done = desk.run("--trust-pickle", "--label", "late", out="packaged")
    assert done.exit_code == 0, done.output
    return desk.folder / "packaged"


def test_it_packages_and_says_how_it_agrees(desk: Desk) -> None:
    done = desk.run("--trust-pickle", "--label", "late", "--trained-until", "2024-02-01")
    assert done.exit_code == 0, done.output
    assert (
        "model.joblib: sklearn.ensemble.RandomForestClassifier, 4 inputs, answers the probability of '1'" in done.stdout
    )
    assert re.search(r"kind +Category, 3 categories", done.stdout)
    assert (
        "agrees with predict_proba of the sample as a data frame: 400 rows, largest difference 0.0e+00" in done.stdout
    )
    assert "served as ONNX" in done.stdout
    assert "roc_auc 0.9" in done.stdout
    files = {path.name for path in (desk.folder / "out").iterdir()}
    assert {"manifest.json", "model.skops", "model.onnx", "signature.json", "import.json"} <= files
    imported = json.loads((desk.folder / "out/signature.json").read_text())["imported"]
    assert imported["trainedUntil"] == "2024-02-01T00:00:00Z"


def test_without_trust_it_says_the_risk_and_ends_with_2(desk: Desk) -> None:
    done = desk.run(out="none")
    assert done.exit_code == 2
    assert "can run any program with your rights" in done.stderr
    assert not (desk.folder / "none").exists()


def test_a_model_that_disagrees_is_not_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from truekeep.features import imported

    right = imported.scikit_learn
    monkeypatch.setattr(imported, "scikit_learn", lambda *given: lambda matrix: right(*given)(matrix) * 0.9)
    done = desk.run("--trust-pickle", out="none")
    assert (done.exit_code, (desk.folder / "none").exists()) == (1, False)
    assert "DISAGREES" in done.stdout
    assert "nothing was written" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "amount"], "the model takes 5 columns, and --columns names 1: amount"),
        (["--positive", "7"], "--positive '7' is none of the model's classes: 0, 1"),
        (["--push", "http://bucket"], "--push http://bucket: "),
        (["--features", "{folder}/model.joblib"], "is no YAML with one Model"),
        (["--pipeline", "nobody.skops"], "nobody.skops: No such file or directory"),
    ],
)
def test_wrong_input_ends_with_2_and_names_it(arguments: list[str], message: str, desk: Desk) -> None:
    done = desk.run("--trust-pickle", *(one.format(folder=desk.folder) for one in arguments), out="wrong")
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_a_folder_with_other_files_is_left_alone(desk: Desk) -> None:
    other = desk.folder / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    done = desk.run("--trust-pickle", out="other")
    assert done.exit_code == 2
    assert "holds other files" in done.stderr
    assert (other / "thesis.tex").exists()


def test_types_and_limits_from_a_model_s_yaml(desk: Desk) -> None:
    features = [{"name": "amount", "type": "Number", "minimum": "-9", "nulls": "Refuse"}]
    (desk.folder / "model.yaml").write_text(yaml.safe_dump({"kind": "Model", "spec": {"data": {"features": features}}}))
    done = desk.run("--trust-pickle", "--features", str(desk.folder / "model.yaml"), "--cut-off", "0.3")
    assert done.exit_code == 0, done.output
    signature = json.loads((desk.folder / "out/signature.json").read_text())
    assert signature["features"][0] | {"minimum": -9.0, "nulls": "Refuse"} == signature["features"][0]
    assert signature["cutOff"] == 0.3


def test_it_is_pushed_by_its_digest(desk: Desk, versitygw: Versitygw) -> None:
    store = versitygw.location("imports/")
    keys = {"AWS_ACCESS_KEY_ID": versitygw.access, "AWS_SECRET_ACCESS_KEY": versitygw.secret}
    done = desk.run("--trust-pickle", "--push", store.uri, "--endpoint", store.endpoint or "", **keys)
    assert done.exit_code == 0, done.output
    snippet = yaml.safe_load(done.stdout[done.stdout.index("training:") :])
    location, digest = snippet["training"]["import"]["s3"], snippet["training"]["import"]["digest"]
    assert location == {"uri": store.uri, "endpoint": store.endpoint}
    files = artifacts.read(Bucket.open(store), digest)
    assert files[layout.SIGNATURE] == (desk.folder / "out/signature.json").read_bytes()


class Served:
    """`truekeep serve`, on a port of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.log = folder.parent / f"serve-{self.port}.log"
        command = [sys.executable, "-m", "truekeep.cli", "serve", str(folder), "--port", str(self.port), *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": "operator"}
            )

    def ready(self) -> str:
        """What it says once it answers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if "curl" in (text := self.log.read_text()):
                return text
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def served(packaged: Path) -> Iterator[Served]:
    server = Served(packaged, "--name", "late")
    yield server
    server.process.kill()
    server.process.wait()


def test_it_serves_what_it_packaged(served: Served, desk: Desk) -> None:
    """Every row, as the original answers it; the curl line that it prints; Ctrl-C."""
    said = served.ready()
    rows = frame(seed=9)
    inputs = [
        {
            "name": name,
            "datatype": kind,
            "shape": [len(rows)],
            "data": [v if v == v else None for v in rows[name].tolist()],
        }
        for name, kind in (("amount", "FP64"), ("age", "FP64"), ("kind", "BYTES"), ("month", "INT64"))
    ]
    url = f"http://127.0.0.1:{served.port}/v2/models/late/infer"
    got = httpx.post(url, json={"inputs": inputs}).json()["outputs"][0]["data"]
    assert got == pytest.approx(answers(desk.model, rows), abs=1e-9)
    (line,) = [one for one in said.splitlines() if one.startswith("curl")]
    answer: Any = json.loads(subprocess.run(shlex.split(line), capture_output=True, check=True).stdout)
    assert answer["model_name"] == "late"
    assert httpx.get(f"http://127.0.0.1:{served.port}/docs").status_code == 200
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(10) == 0


def test_an_altered_artifact_is_not_served(packaged: Path, tmp_path: Path) -> None:
    for file in packaged.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    signature = (tmp_path / "signature.json").read_text()
    (tmp_path / "signature.json").write_text(signature.replace('"cutOff":0.5', '"cutOff":0.1'))
    done = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", "0"])
    assert done.exit_code == 2
    assert "signature.json" in done.stderr
    assert CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere")]).exit_code == 2


def test_a_port_that_is_taken_ends_with_2(packaged: Path, served: Served) -> None:
    served.ready()
    other = subprocess.run(
        [sys.executable, "-m", "truekeep.cli", "serve", str(packaged), "--port", str(served.port)],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": "operator"},
    )  # fmt: skip
    assert other.returncode == 2
    assert f"--port {served.port}: " in other.stderr
