"""A model that a plain script trained, with scikit-learn and joblib alone, becomes revision 1 of a Model and serves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import pandas as pd
import pytest

from tests.e2e.shop import BEGINS, DAYS, REQUEST, ROWS_PER_DAY, Shop, open_shop, small_model
from tests.story.kube import ROOT, Json, Kube, condition, holds, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud
from truekeep.cli.examples.upload import make_bucket

NAMESPACE = "truekeep-e2e-import"
NAME = "payments"
TRAINED = BEGINS + timedelta(days=25)
SCRIPT = """
import sys
import joblib, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

rows, trees, target = pd.read_parquet(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
numbers = ["hour", "amount", "card_age_days", "distance_km"]
texts = ["channel", "merchant", "country"]
columns = ColumnTransformer([
    ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
    ("texts", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), texts),
])
forest = RandomForestClassifier(trees, min_samples_leaf=5, class_weight="balanced", random_state=1)
joblib.dump(Pipeline([("columns", columns), ("forest", forest)]).fit(rows.drop(columns="fraud"), rows["fraud"]), target)
"""


@dataclass
class Import:
    """What `truekeep import --push` made, and the model that it was made of."""

    model: Any
    digest: str
    said: str


class Team:
    """Somebody with the data of a few weeks on a laptop."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self.endpoint = endpoint
        made = fraud.tables(BEGINS, DAYS, ROWS_PER_DAY, BEGINS + timedelta(days=3660), seed=7)
        truth = made["chargebacks"].to_pandas().set_index("payment_id")["fraud"]
        rows = made["payments"].to_pandas()
        rows["fraud"] = rows["payment_id"].map(truth).astype(int)
        old = rows["paid_at"] <= pd.Timestamp(TRAINED)
        self.new = rows[~old]
        rows.loc[old, [*REQUEST, "fraud"]].to_parquet(folder / "old.parquet")
        self.new[[*REQUEST, "fraud"]].to_parquet(folder / "sample.parquet")
        (folder / "train.py").write_text(SCRIPT)

    def run(self, *arguments: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def imports(self, trees: int) -> Import:
        file = f"model-{trees}.joblib"
        self.run("train.py", "old.parquet", str(trees), file)
        push = ["--push", "s3://imports/", "--endpoint", self.endpoint, "--trained-until", TRAINED.strftime("%Y-%m-%d")]
        given = [file, "--trust-pickle", "--sample", "sample.parquet", "--label", "fraud", "--out", f"out-{trees}"]
        said = self.run("-m", "truekeep.cli", "import", *given, *push)
        (digest,) = re.findall(r"^    digest: (sha256:[0-9a-f]{64})$", said, re.M)
        return Import(joblib.load(self.folder / file), digest, said)


def imported(digest: str, **spec: Any) -> Json:
    """The Model with this import for its training."""
    given = {
        "recipe": None,
        "import": {"s3": {"uri": "s3://imports/"}, "digest": digest},
        "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}},
    }
    evaluation = {"decision": None, "refit": None, "champion": None}
    model = small_model(NAME, training=given, evaluation=evaluation, **spec)
    assert set(model["spec"]["training"]) == {"import", "resources", "timeoutSeconds"}
    return model


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    with open_shop(kube, NAMESPACE, {}) as shop:
        yield shop


@pytest.fixture(scope="module")
def team(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        make_bucket("imports", stage.endpoint, versions=False)
        yield Team(tmp_path_factory.mktemp("team"), stage.endpoint)


@pytest.fixture(scope="module")
def first(shop: Shop, team: Team) -> Import:
    """Revision 1."""
    made = team.imports(20)
    shop.apply(imported(made.digest))
    shop.ready(NAME, 1)
    return made


def answers(shop: Shop, rows: pd.DataFrame) -> Any:
    """The served probabilities, a request for all rows."""
    inputs = [
        {"name": name, "shape": [len(rows)], "datatype": kind, "data": rows[name].tolist()}
        for name, (kind, _) in REQUEST.items()
    ]
    with shop.kube.forward(NAMESPACE, NAME, 80) as port:
        url = f"http://127.0.0.1:{port}/v2/models/{NAME}/infer"
        reply = httpx.post(url, json={"inputs": inputs}, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_it_becomes_revision_1_and_answers_as_predict_proba(shop: Shop, team: Team, first: Import) -> None:
    assert "agrees with predict_proba of the sample as a data frame" in first.said
    assert "served as ONNX" in first.said
    active = shop.model(NAME)["status"]["active"]
    assert (active["revision"], active["artifactDigest"]) == (1, first.digest)
    reply = answers(shop, team.new)
    assert reply["model_version"] == "1"
    got = np.array(reply["outputs"][0]["data"])
    assert len(got) == len(team.new) > 1000
    assert np.abs(got - first.model.predict_proba(team.new)[:, 1]).max() <= 1e-9


def test_it_was_judged_on_rows_that_are_newer_than_its_training(shop: Shop, team: Team, first: Import) -> None:
    (run,) = shop.runs(NAME)
    assert holds(run, "Complete")
    assert "newer than its training, which ended 2024-01-26" in condition(run, "Ready")["message"]
    (gate,) = run["status"]["gates"]
    assert gate["result"] == "Passed"
    assert 0 < gate["rows"] <= len(team.new)
    assert run["status"]["artifact"]["digest"] == first.digest
    assert run["status"]["record"]["id"].startswith("sha256:")


def test_a_digest_that_is_not_there_is_refused_and_revision_1_stays(shop: Shop, team: Team, first: Import) -> None:
    shop.patch(NAME, {"training": {"import": {"digest": f"sha256:{'0' * 64}"}}})
    said = shop.reason(NAME, "ImportInvalid", 120)
    assert "spec.training.import" in said["message"]
    assert answers(shop, team.new.head(3))["model_version"] == "1"


def test_another_digest_is_another_revision(shop: Shop, team: Team, first: Import) -> None:
    second = team.imports(10)
    assert second.digest != first.digest
    shop.patch(NAME, {"training": {"import": {"digest": second.digest}}})
    model = shop.ready(NAME, 2)
    assert model["status"]["active"]["artifactDigest"] == second.digest
    rows = team.new.head(300)
    reply = answers(shop, rows)
    assert reply["model_version"] == "2"
    want = second.model.predict_proba(rows)[:, 1]
    assert np.abs(np.array(reply["outputs"][0]["data"]) - want).max() <= 1e-9


def test_no_pickle_lies_in_the_store(shop: Shop, team: Team, first: Import) -> None:
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        names = {info.key.rpartition("/")[2] for info in stage.bucket("imports").list()}
    assert names == {"manifest.json", "model.skops", "model.onnx", "signature.json", "profile.json",
                     "performance.json", "import.json"}  # fmt: skip
    assert name_of(shop.model(NAME)) == NAME
