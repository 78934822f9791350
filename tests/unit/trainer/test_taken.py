"""A model that was trained elsewhere, as a run: on a real store, from what `truekeep import` packages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import joblib
import pyarrow.parquet as pq
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.unit.conftest import Versitygw, free_port
from tests.unit.trainer.elsewhere import answers
from tests.unit.trainer.lake import START, data_of, events, replaced
from tests.unit.trainer.test_run import GATE, Place
from truekeep.api.training import Training
from truekeep.contract import layout
from truekeep.contract.results import TrainResult
from truekeep.features import models
from truekeep.features.encode import Encoder
from truekeep.storage import artifacts
from truekeep.storage.s3 import Bucket
from truekeep.trainer.imported.features import Wishes
from truekeep.trainer.imported.package import Options, Package, package
from truekeep.trainer.run import exit_code

FEATURES = ["amount", "kind"]
HALF = START + timedelta(minutes=10 * 1200)


def trained(shift: float = 0.0, tolerant: bool = True) -> Any:
    """What a script elsewhere made: of rows of the same world, before those of the lake."""
    frame = events(seed=2, start=START - timedelta(days=90), shift=shift).to_pandas()
    unknown = "ignore" if tolerant else "error"
    parts = [("k", OneHotEncoder(handle_unknown=unknown), ["kind"])]
    numbers = SimpleImputer() if tolerant else "passthrough"
    model = make_pipeline(ColumnTransformer([("n", numbers, ["amount"]), *parts]), LogisticRegression())
    return model.fit(frame[FEATURES], frame["late"])


class Port(Place):
    """A store, a lake, and a prefix into which models are pushed."""

    def __init__(self, versitygw: Versitygw, folder: Path) -> None:
        super().__init__(versitygw)
        self.folder = folder
        self.imports = versitygw.location("imports/", bucket=self.name)

    def packaged(self, model: Any, **options: Any) -> Package:
        joblib.dump(model, self.folder / "model.joblib")
        pq.write_table(events(seed=3).drop_columns(["id", "at"]), self.folder / "rows.parquet")
        given = Options(wishes=Wishes(label="late"), trust_pickle=True, **options)
        return package(self.folder / "model.joblib", self.folder / "rows.parquet", given)

    def pushed(self, model: Any, **options: Any) -> Package:
        made = self.packaged(model, **options)
        artifacts.write(Bucket.open(self.imports), made.files)
        return made

    def take(self, digest: str, **changes: Any) -> TrainResult:
        given = {"import": {"s3": self.imports.dump(), "digest": digest}}
        return self.run(self.request(training=Training.model_validate(given), **changes))


@pytest.fixture
def port(versitygw: Versitygw, tmp_path: Path) -> Port:
    port = Port(versitygw, tmp_path)
    port.write(events())
    return port


def test_what_was_imported_is_judged_and_published_as_it_is(port: Port) -> None:
    model = trained()
    made = port.pushed(model)
    result = port.take(made.digest, evaluation={**GATE, "champion": {"metric": "roc_auc"}})
    assert result.reason == "Succeeded", result.message
    assert "480 rows of the holdout; 1 gate passed; imported; whether it was trained on these rows nobody said" in (
        result.message
    )
    assert result.artifact is not None
    assert result.artifact.digest == made.digest
    assert result.artifact.format == "skops+onnx"
    assert port.files(result) == made.files
    assert result.trained_until is None
    assert (result.cut_off, result.fit_seconds) == ("0.500000", "0.000")
    signature = models.read_signature(port.files(result)[layout.SIGNATURE])
    predict, kind = models.predictor(port.files(result), signature)
    assert kind == "onnx"
    frame = events().to_pandas()
    matrix = Encoder(signature.features).encode({name: frame[name].tolist() for name in FEATURES}, len(frame))
    assert predict(matrix) == pytest.approx(answers(model, frame[FEATURES]), abs=1e-9)


def test_the_record_says_where_it_came_from(port: Port) -> None:
    made = port.pushed(trained())
    record = port.record(port.take(made.digest))
    assert record["training"]["declared"]["import"]["digest"] == made.digest
    assert record["training"]["seed"] is None
    said = record["evaluation"]["import"]
    assert (said["source"], said["sourceSha256"]) == ("model.joblib", made.report["source"]["sha256"])
    assert said["trainedUntil"] is None
    assert record["artifact"]["digest"] == made.digest


def test_only_rows_that_are_newer_than_its_training_judge_it_where_that_is_known(port: Port) -> None:
    result = port.take(port.pushed(trained(), trained_until=HALF).digest, evaluation=GATE)
    assert result.reason == "Succeeded", result.message
    assert result.gates[0].rows == 1199
    assert "newer than its training, which ended 2024-01-09T08:00:00Z" in result.message
    assert result.trained_until == HALF


def test_without_any_newer_row_it_can_t_be_judged(port: Port) -> None:
    result = port.take(port.pushed(trained(), trained_until=datetime(2025, 1, 1, tzinfo=UTC)).digest)
    assert (result.reason, exit_code(result)) == ("DataInvalid", 3)
    assert "was trained until 2025-01-01T00:00:00Z, and no labelled row of spec.data.window is newer" in result.message


def test_a_model_that_misses_a_gate_is_not_published(port: Port) -> None:
    made = port.pushed(trained(shift=1.0))
    result = port.take(made.digest, evaluation=GATE)
    assert (result.reason, exit_code(result)) == ("GatesFailed", 0)
    assert result.artifact is None
    assert port.artifacts() == []


def test_it_is_compared_with_the_live_revision_and_is_one_itself(port: Port) -> None:
    live = port.run(estimator="sklearn.linear_model.LogisticRegression")
    assert live.artifact is not None
    before = {"revision": 1, "artifactDigest": live.artifact.digest, "trainedUntil": START}
    rule = {"champion": {"metric": "roc_auc"}}
    good, bad = (
        port.take(port.pushed(trained(shift=shift)).digest, evaluation=rule, champion=before, run_uid=f"run-{shift}")
        for shift in (0.0, 1.0)
    )
    assert (good.reason, bad.reason) == ("Succeeded", "ChampionKept")
    assert good.artifact is not None
    imported = {"revision": 2, "artifactDigest": good.artifact.digest, "trainedUntil": START}
    again = port.run(evaluation=rule, champion=imported, run_uid="run-again", parameters={"C": "0.5"})
    assert again.champion is not None
    assert (again.champion.revision, again.champion.result) == (2, "Passed")


def test_an_artifact_of_another_store_is_taken_over_as_it_is(port: Port, versitygw: Versitygw) -> None:
    """From staging to production, say: the import's location may be another Truekeep's store."""
    elsewhere = Place(versitygw).write(events())
    made = elsewhere.run()
    assert made.artifact is not None
    given = {"import": {"s3": elsewhere.store.dump(), "digest": made.artifact.digest}}
    result = port.run(port.request(training=Training.model_validate(given), run_uid="over-there"))
    assert result.reason == "Succeeded", result.message
    assert result.artifact is not None
    assert result.artifact.digest == made.artifact.digest


def test_what_is_not_that_artifact_is_refused(port: Port) -> None:
    missing = port.take("sha256:" + "0" * 64)
    assert (missing.reason, exit_code(missing)) == ("ImportInvalid", 3)
    assert "spec.training.import: " in missing.message
    assert "is missing" in missing.message
    made = port.pushed(trained())
    bucket = Bucket.open(port.imports)
    key = layout.artifact_file(made.digest, "model.skops")
    bucket.put(key, made.files["model.skops"][:-1] + b"x")
    altered = port.take(made.digest, run_uid="run-2")
    assert altered.reason == "ImportInvalid"
    assert "model.skops" in altered.message
    assert port.artifacts() == []


def test_a_model_that_does_not_answer_its_examples_is_refused(port: Port) -> None:
    made = port.packaged(trained())
    files = dict(made.files)
    files[layout.SIGNATURE] = files[layout.SIGNATURE].replace(b'"probability":0.', b'"probability":0.9', 1)
    written = artifacts.write(Bucket.open(port.imports), files)
    result = port.take(written.digest)
    assert result.reason == "ImportInvalid"
    assert "example 0 (amount=" in result.message


def test_files_that_a_server_would_refuse_are_refused(port: Port) -> None:
    files = dict(port.packaged(trained()).files)
    pickled = (port.folder / "model.joblib").read_bytes()
    del files["model.onnx"]
    written = artifacts.write(Bucket.open(port.imports), {**files, "model.skops": pickled})
    assert "pickle and joblib files are never loaded" in port.take(written.digest).message
    del files["profile.json"]
    written = artifacts.write(Bucket.open(port.imports), files)
    assert "it has no profile.json" in port.take(written.digest, run_uid="run-2").message


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([{"name": "amount", "type": "Number"}], "spec.data.features lacks kind, which the imported model takes"),
        ([{"name": "amount", "type": "Number"}, {"name": "kind", "type": "Category"},
          {"name": "more", "type": "Number"}],
         "the imported model does not take more; it takes amount, kind"),
        ([{"name": "amount", "type": "Category"}, {"name": "kind", "type": "Category"}],
         "amount is declared a Category, and the imported model takes a Number"),
    ],
)  # fmt: skip
def test_features_must_be_those_that_it_takes(port: Port, features: Any, message: str) -> None:
    result = port.take(port.pushed(trained()).digest, data=data_of(features=features))
    assert result.reason == "ImportInvalid"
    assert message in result.message


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("amount", None, "amount: 1 row of 480 have no value, and the imported model takes no nulls there"),
        ("kind", "d", "kind: 1 row of 480 hold a value that the imported model does not know, the first 'd'"),
    ],
)
def test_rows_that_it_refuses_are_told_by_their_column(port: Port, column: str, value: Any, message: str) -> None:
    rows = events()
    values = rows[column].to_pylist()
    values[-1] = value
    port.write(replaced(rows, column, values, rows.schema.field(column).type))
    result = port.take(port.pushed(trained(tolerant=False)).digest)
    assert result.reason == "DataInvalid"
    assert message in result.message


def test_a_store_that_does_not_answer_may_be_tried_again(port: Port) -> None:
    nowhere = port.imports.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    given = {"import": {"s3": nowhere.dump(), "digest": "sha256:" + "0" * 64}}
    result = port.run(port.request(training=Training.model_validate(given)))
    assert (result.reason, exit_code(result)) == ("StoreUnreachable", 4)


def test_an_imported_model_is_asked_with_missing_columns_too(port: Port) -> None:
    robust = {"robustness": [{"name": "sturdy", "metric": "roc_auc", "maxDrop": "0.05"}]}
    result = port.take(port.pushed(trained()).digest, evaluation=robust)
    assert result.reason == "GatesFailed"
    assert {gate.name: gate.result for gate in result.gates}["sturdy=amount"] == "Failed"
