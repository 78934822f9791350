"""`truekeep reproduce`: a recorded run again, bit-equal, or with what differs, or with why it can't be."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from tests.unit.cli.test_train import MODEL
from tests.unit.conftest import Versitygw
from tests.unit.trainer.lake import ROWS, START, events, parquet, replaced, request_of
from truekeep.cli import reproduce
from truekeep.cli.kube import Person
from truekeep.cli.main import app
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import Champion, TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.storage.s3 import Bucket
from truekeep.trainer.run import World, run

GATES = {
    "gates": [{"name": "auc", "metric": "roc_auc", "minimum": "0.6"}],
    "slices": [{"name": "by-kind", "column": "kind", "metric": "roc_auc", "minimum": "0.5", "minRows": 10}],
    "decision": {"rule": "RecallAtFalsePositiveRate", "value": "0.1"},
    "refit": "OnAllRows",
}
LABEL = {"label": {"column": "late", "source": {"s3": {"uri": "s3://lake/labels/"}}}}


def lake(folder: Path, order: list[int] | None = None) -> Path:
    """Rows in three files and labels in three of the same names, written in an order."""
    table = events()
    for number in order or [0, 1, 2]:
        part = table.slice(number * ROWS // 3, ROWS // 3)
        for name, content in (("rows", part.drop_columns(["late"])), ("labels", part.select(["id", "late"]))):
            (folder / "lake" / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(content, folder / "lake" / name / f"{number}.parquet")
    return folder


def model(folder: Path, **training: Any) -> Path:
    document = copy.deepcopy(MODEL)
    document["spec"]["data"] |= LABEL
    document["spec"]["evaluation"] = GATES
    document["spec"]["training"]["recipe"] |= training
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def say(*words: Any) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder that `truekeep train` wrote, and the data beside it."""
    path = model(tmp_path)
    code, out, err = say("train", "-f", path, "--data", lake(tmp_path / "data"), "--out", tmp_path / "out")
    assert code == 0, out + err
    return tmp_path


def test_a_run_on_files_is_bit_equal_also_elsewhere_and_beside_new_files(trained: Path) -> None:
    elsewhere = trained / "elsewhere"
    shutil.move(trained / "data", elsewhere)
    shutil.copy(elsewhere / "lake/rows/0.parquet", elsewhere / "lake/rows/9.parquet")  # came since: it was not read
    code, out, err = say(
        "reproduce", "--record", trained / "out/record.json", "--data", elsewhere, "--out", trained / "again"
    )
    assert code == 0, out + err
    digest = json.loads((trained / "out/result.json").read_text())["artifact"]["digest"]
    assert f"bit-equal: {digest}" in out
    assert "inputs: 6 objects, all as recorded" in out
    assert "verdict: the same, Succeeded" in out
    assert (trained / "again/model.skops").read_bytes() == (trained / "out/model.skops").read_bytes()
    assert json.loads((trained / "again/record.json").read_text())["artifact"]["digest"] == digest


def test_without_its_files_it_says_where_they_are_to_be_given(trained: Path) -> None:
    code, _, err = say("reproduce", "--record", trained / "out/record.json")
    assert code == 2
    assert "--data says where it is now" in err


@pytest.mark.parametrize("change", ["altered", "gone"])
def test_an_input_that_changed_is_named(trained: Path, change: str) -> None:
    path = trained / "data/lake/labels/1.parquet"
    if change == "gone":
        path.unlink()
    else:
        table = pq.read_table(path)
        pq.write_table(replaced(table, "late", 1 - table["late"].to_numpy()), path)
    code, out, err = say("reproduce", "--record", trained / "out/record.json", "--data", trained / "data")
    assert (code, out) == (2, "")
    assert "labels/1.parquet" in err
    assert ("is not below" if change == "gone" else "now it has sha256:") in err


def altered(trained: Path, change: Any) -> Path:
    """The record as if the run had been another one."""
    path = trained / "out/record.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_bytes(canonical_json(document))
    return path


def test_what_differs_is_told_file_by_file_with_the_largest_difference(trained: Path) -> None:
    """The record says another seed for an estimator that draws rows: the same data, another model."""

    def seed(record: dict[str, Any]) -> None:
        record["training"]["declared"]["recipe"]["parameters"] = [{"name": "C", "value": "0.001"}]
        record["environment"]["libraries"]["scikit-learn"] = "0.1"

    path = altered(trained, seed)
    code, out, _ = say("reproduce", "--record", path, "--data", trained / "data")
    assert code == 1
    digest = json.loads((trained / "out/result.json").read_text())["artifact"]["digest"]
    assert f"DIFFERS: {digest} then, sha256:" in out
    assert "  model.skops differs" in out
    assert "on 2,400 rows: more than 1e-9" in out
    assert "libraries scikit-learn: 0.1 then" in out
    code, out, _ = say("reproduce", "--record", path, "--data", trained / "data", "-o", "json")
    found = json.loads(out)
    assert (code, found["result"]) == (1, "Different")
    assert found["predictions"]["largestDifference"] > 1e-3
    assert found["predictions"]["rows"] == ROWS
    assert {"what": "libraries scikit-learn", "then": "0.1"}.items() <= found["around"][0].items()


def test_a_verdict_that_is_another_one_is_told_before_all(trained: Path) -> None:
    def stricter(record: dict[str, Any]) -> None:
        record["evaluation"]["declared"]["gates"][0]["minimum"] = "0.99"

    code, out, _ = say("reproduce", "--record", altered(trained, stricter), "--data", trained / "data")
    assert code == 1
    assert "verdict: ANOTHER ONE" in out
    assert "outcome: Succeeded then, GatesFailed now" in out
    assert "gate auc: Passed then, Failed now" in out


def test_a_run_that_failed_its_gates_gives_the_same_without_an_artifact(tmp_path: Path) -> None:
    document = yaml.safe_load(model(tmp_path).read_text())
    document["spec"]["evaluation"]["gates"][0]["minimum"] = "0.99"
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(document))
    data = lake(tmp_path / "data")
    assert say("train", "-f", tmp_path / "model.yaml", "--data", data, "--out", tmp_path / "out")[0] == 1
    code, out, err = say("reproduce", "--record", tmp_path / "out/record.json", "--data", data)
    assert code == 0, out + err
    assert "the same: GatesFailed, and no artifact" in out


def test_a_tuned_run_is_fitted_again_with_what_was_chosen(tmp_path: Path) -> None:
    tuned = {"tuning": {"search": "Grid", "parameters": [{"name": "C", "values": ["0.01", "10"]}], "metric": "roc_auc"}}
    path, data = model(tmp_path, **tuned), lake(tmp_path / "data")
    code, out, err = say("train", "-f", path, "--data", data, "--out", tmp_path / "out")
    assert code == 0, out + err
    code, out, err = say("reproduce", "--record", tmp_path / "out/record.json", "--data", data)
    assert code == 0, out + err
    assert "bit-equal" in out


PROGRAM = """
import sys
from truekeep.cli.main import app
app(sys.argv[1:])
"""


def in_a_process(folder: Path, path: Path, data: Path, environment: Mapping[str, str]) -> str:
    """The digest of the artifact that a process of its own makes."""
    words = ["train", "-f", str(path), "--data", str(data), "--out", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": "operator", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    digest: str = json.loads((folder / "out/result.json").read_text())["artifact"]["digest"]
    return digest


@pytest.mark.parametrize("estimator", ["sklearn.ensemble.HistGradientBoostingClassifier", "lightgbm.LGBMClassifier"])
def test_threads_hashes_and_the_order_of_writing_change_no_bit_of_the_artifact(tmp_path: Path, estimator: str) -> None:
    digests = set()
    for threads, seed, order in (("1", "0", [0, 1, 2]), ("3", "77", [2, 0, 1])):
        folder = tmp_path / threads
        data, path = lake(folder / "data", order), model(folder, estimator=estimator)
        digests.add(in_a_process(folder, path, data, {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": seed}))
    assert len(digests) == 1


class Cluster(Person):
    """A run that ended, and its Model."""

    status: dict[str, Any]
    store: dict[str, Any] | None

    def find(self, plural: str, name: str) -> Any:
        assert (plural, name) == ("trainingruns", "late-1")
        return {"spec": {"modelRef": {"name": "late"}}, "status": self.status}

    def list(self, plural: str) -> Any:
        assert plural == "models"
        return [{"metadata": {"name": "late"}, "spec": {"store": {"s3": self.store}}}] if self.store else []


@pytest.fixture
def ran(versitygw: Versitygw, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainResult, TrainRequest]:
    """A run in a store, whose bucket keeps versions, that had to beat a champion; whoever asks has his own keys."""
    store = versitygw.location("models/", versions=True)
    bucket = store.uri.split("/")[2]
    rows = Bucket.open(versitygw.location("lake/rows/", bucket=bucket))
    rows.put("a.parquet", parquet(events()))
    world = World(Bucket.open, lambda: START, lambda words: None, 1)  # type: ignore[arg-type]
    first = run(request_of(store, evaluation=GATES, parameters={"C": "0.0001"}, run="late-0", run_uid="first"), world)
    assert first.artifact is not None
    champion = Champion(revision=1, artifact_digest=first.artifact.digest, trained_until=START)
    request = request_of(store, evaluation={**GATES, "champion": {"metric": "roc_auc"}}, champion=champion)
    result = run(request, world)
    assert (result.reason, result.champion.result if result.champion else "") == ("Succeeded", "Passed"), result.message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", versitygw.access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", versitygw.secret)
    monkeypatch.setattr(reproduce, "person", lambda namespace: Cluster("shop"))
    monkeypatch.setattr(Cluster, "status", result.dump(), raising=False)
    monkeypatch.setattr(Cluster, "store", store.dump(), raising=False)
    return result, request


@pytest.mark.parametrize("by", ["run", "run without its Model", "uri"])
def test_a_run_of_the_cluster_with_its_champion_from_the_store(
    ran: tuple[TrainResult, TrainRequest], by: str, monkeypatch: pytest.MonkeyPatch, versitygw: Versitygw
) -> None:
    result, _ = ran
    assert result.record is not None
    assert result.artifact is not None
    if by == "run without its Model":
        monkeypatch.setattr(Cluster, "store", None)
    words = ["--record", result.record.uri] if by == "uri" else ["late-1"]
    code, out, err = say("reproduce", *words, "--endpoint", versitygw.endpoint)
    assert code == 0, out + err
    assert f"bit-equal: {result.artifact.digest}" in out
    assert "the champion" not in out


def test_the_version_that_was_read_is_read_again_and_one_that_is_gone_is_named(
    ran: tuple[TrainResult, TrainRequest], versitygw: Versitygw
) -> None:
    _, request = ran
    place = request.data.source.place
    bucket = Bucket.open(place)  # type: ignore[arg-type]
    versions = versitygw.client().list_object_versions(Bucket=bucket.name, Prefix="lake/rows/")["Versions"]
    bucket.put("a.parquet", parquet(events(seed=5)))
    assert say("reproduce", "late-1")[0] == 0
    client = versitygw.client()
    client.delete_object(Bucket=bucket.name, Key="lake/rows/a.parquet", VersionId=versions[0]["VersionId"])
    code, out, err = say("reproduce", "late-1")
    assert (code, out) == (2, "")
    assert "lake/rows/a.parquet was read when the run began, and is gone now" in err


def test_an_altered_record_is_not_believed(ran: tuple[TrainResult, TrainRequest]) -> None:
    result, request = ran
    assert result.record is not None
    key = f"records/sha256/{result.record.id.removeprefix('sha256:')}.json"
    bucket = Bucket.open(request.store)
    bucket.put(key, bucket.get(key).replace(b"0.6", b"0.1"))
    code, _, err = say("reproduce", "late-1")
    assert code == 2
    assert "THE RECORD WAS ALTERED" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one of RUN and --record"),
        (["late-1", "--record", "x"], "name one of RUN and --record"),
        (["--record", "/nowhere/record.json"], "No such file"),
        (["--record", "s3://models/elsewhere.json"], "it ends in records/sha256/HEX.json"),
        (["late-1", "-o", "yaml"], "it must be text or json"),
    ],
)
def test_what_can_not_be_understood_is_refused(words: list[str], said: str) -> None:
    code, _, err = say("reproduce", *words)
    assert code == 2
    assert said in err


def test_what_is_no_record_and_what_only_a_teams_image_can_do_is_refused(trained: Path) -> None:
    path = trained / "out/record.json"
    document = json.loads(path.read_text())
    document["training"]["declared"] = {
        "image": {"reference": "registry.example/fit@sha256:" + hashlib.sha256(b"x").hexdigest(), "format": "ONNX"}
    }
    path.write_bytes(canonical_json(document))
    code, _, err = say("reproduce", "--record", path, "--data", trained / "data")
    assert code == 2
    assert "was fitted by the team's image registry.example/fit@" in err
    path.write_text("[]")
    assert "is no record of a training run" in say("reproduce", "--record", path)[2]


def test_predictions_near_enough_are_said_to_be_as_promised() -> None:
    from truekeep.trainer.record.reproduce import Comparison

    found = Comparison("sha256:r", "sha256:a", "sha256:b", "Succeeded", files=("model.skops",), largest=3e-11, rows=10)
    assert not found.equal
    assert found.near
    assert found.dump()["result"] == "Near"
    record = {"run": {"name": "n", "namespace": "s", "model": "m"}, "data": {"objects": []}}
    lines = "\n".join(reproduce.told(reproduce.Recorded(record, "sha256:x", None), found))
    assert "differ by at most 3e-11 on 10 rows: within 1e-9, as promised where the CPU is of another type" in lines
