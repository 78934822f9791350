"""A trial's pod as it is started: which trial from Kubernetes' own variable, what it found to the store, exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Versitygw, free_port
from tests.unit.trainer.lake import events, parquet, request_of
from truekeep.api.training import Training
from truekeep.contract import layout
from truekeep.contract.canonical import canonical_json
from truekeep.contract.requests import TrainRequest
from truekeep.contract.results import TrainResult
from truekeep.contract.tuning import TrialResult, TuningInputs
from truekeep.storage.s3 import Bucket

BOOSTING = "sklearn.ensemble.GradientBoostingClassifier"
ENDLESS = "10000000"


class Pod:
    """Starts a trial as its image does."""

    def __init__(self, versitygw: Versitygw, folder: Path) -> None:
        self.log = folder / "termination-log"
        lake = versitygw.location()
        Bucket.open(lake).put("lake/rows/a.parquet", parquet(events()))
        self.store = versitygw.location("models/", bucket=lake.uri.split("/")[2])
        self.bucket = Bucket.open(self.store)
        self.environment = {
            **versitygw.environment(),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "operator",
            "TRUEKEEP_TERMINATION_LOG": str(self.log),
            "OMP_NUM_THREADS": "1",
        }

    def request(self, **changes: Any) -> TrainRequest:
        request = request_of(self.store, estimator=BOOSTING, **changes)
        tuned = [{"name": "n_estimators", "values": ["2", ENDLESS]}]
        tuning = {"search": "Grid", "parameters": tuned, "folds": 2, "timeoutSeconds": 60}
        recipe = {**request.training.dump()["recipe"], "tuning": tuning}
        return request.model_copy(update={"training": Training.model_validate({"recipe": recipe})})

    def run(self, request: TrainRequest, index: str | None) -> tuple[int, str, str]:
        text = request.model_dump_json(by_alias=True)
        environment = {**self.environment, "TRUEKEEP_REQUEST": text}
        done = subprocess.run(
            [sys.executable, "-m", "truekeep.trainer.tuning.main"],
            env=environment | ({} if index is None else {"JOB_COMPLETION_INDEX": index}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def result(self, index: int) -> TrialResult:
        return TrialResult.model_validate_json(self.bucket.get(layout.tuning_trial("shop", "late", "run-uid", index)))


@pytest.fixture
def pod(versitygw: Versitygw, tmp_path: Path) -> Pod:
    return Pod(versitygw, tmp_path)


def test_a_trial_is_done_once_and_leaves_no_other_word(pod: Pod) -> None:
    code, out, err = pod.run(pod.request(), "0")
    assert (code, err) == (0, "")
    assert "trial 0 of run late-1 of shop/late, 1 threads" in out
    assert "trial 0 (n_estimators 2): Scored, roc_auc 0." in out
    assert pod.result(0).status == "Scored"
    assert not pod.log.exists(), "only the training hands over a result"
    code, out, _ = pod.run(pod.request(), "0")
    assert (code, "trial 0 is done already: Scored" in out) == (0, True)


def test_a_fit_ends_with_the_budget(pod: Pod) -> None:
    assert pod.run(pod.request(), "0")[0] == 0
    key = layout.tuning_inputs("shop", "late", "run-uid")
    inputs = TuningInputs.model_validate_json(pod.bucket.get(key))
    earlier = inputs.model_copy(update={"started": datetime.now(UTC) - timedelta(seconds=53)})
    pod.bucket.put(key, canonical_json(earlier.dump()))
    code, out, err = pod.run(pod.request(), "1")
    assert (code, err) == (0, ""), out
    assert (pod.result(1).status, pod.result(1).message) == ("OutOfTime", "the time was up while it fitted")
    assert "trial 1 (n_estimators 10000000): OutOfTime" in out


@pytest.mark.parametrize("index", [None, "", "two", "2", "-1"])
def test_an_index_that_is_none_of_the_trials_is_wrong_input(pod: Pod, index: str | None) -> None:
    code, _, err = pod.run(pod.request(), index)
    assert code == 3
    assert "JOB_COMPLETION_INDEX" in err


def test_a_store_that_does_not_answer_is_handed_over_as_such(pod: Pod) -> None:
    away = pod.store.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"})
    code, _, err = pod.run(pod.request().model_copy(update={"store": away}), "0")
    assert code == 4
    handed = TrainResult.model_validate_json(pod.log.read_bytes())
    assert (handed.reason, handed.run_uid) == ("StoreUnreachable", "run-uid")
    assert handed.message in err
