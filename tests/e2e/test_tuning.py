"""A grid of settings is tried in pods; one is lost in the middle, the operator too; each trial is there once, and the
best one's model serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.shop import REQUEST, Shop, open_shop, small_model
from tests.e2e.test_kills import kill_operator
from tests.story.kube import Json, Kube, condition, holds, name_of
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.contract import layout

NAMESPACE = "truekeep-e2e-tuning"
NAME = "tuned"
RATES, LEAVES = ["0.05", "0.1", "-1"], ["8", "31"]  # a rate below 0 is refused
TRIALS = len(RATES) * len(LEAVES)
TUNING = {
    "search": "Grid",
    "parameters": [{"name": "learning_rate", "values": RATES}, {"name": "max_leaf_nodes", "values": LEAVES}],
    "metric": "average_precision",
    "parallelism": 2,
    "minTrials": 4,
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    with open_shop(kube, NAMESPACE, {}) as shop:
        yield shop


def trials(stage: Stage, run: Json) -> set[str]:
    """What lies in the store of a run's tuning."""
    prefix = layout.tuning_inputs(NAMESPACE, NAME, run["metadata"]["uid"]).removesuffix("inputs.json")
    return {info.key.removeprefix(prefix) for info in stage.bucket("models").list(prefix)}


def record(stage: Stage, run: Json) -> Any:
    return json.loads(stage.bucket("models").get(layout.record(run["status"]["record"]["id"])))


@pytest.fixture(scope="module")
def tuned(shop: Shop) -> Json:
    """The run, in whose midst a pod and the operator were lost."""
    shop.apply(small_model(NAME, training={"recipe": {"tuning": TUNING}}))

    def at_work() -> list[Json]:
        pods = shop.kube.list(NAMESPACE, "pods", "truekeep.dev/stage=Tune")
        return [pod for pod in pods if pod["status"]["phase"] == "Running"]

    shop.until("a first trial to be at work", 90, at_work)
    shop.kube.kubectl("delete", "pod", "-n", NAMESPACE, name_of(at_work()[0]), "--wait=false")
    kill_operator(shop.kube)
    shop.ready(NAME, 1)
    (run,) = shop.runs(NAME)
    return run


def test_every_trial_is_there_once_and_the_best_one_serves(shop: Shop, tuned: Json) -> None:
    assert holds(tuned, "Complete"), condition(tuned, "Ready")
    job = shop.kube.get(NAMESPACE, "jobs", f"{name_of(tuned)}-tune")
    assert job is not None
    assert (job["status"]["completedIndexes"], job["status"]["succeeded"]) == (f"0-{TRIALS - 1}", TRIALS)
    assert job["status"]["failed"] == 1, "the pod that was deleted, and no other"
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        assert trials(stage, tuned) == {"inputs.json", *(f"{number:03d}.json" for number in range(TRIALS))}
        told = record(stage, tuned)
    found = told["training"]["tuning"]
    tried = [tuple(one["value"] for one in trial["parameters"]) for trial in found["trials"]]
    assert tried == [(rate, leaves) for rate in RATES for leaves in LEAVES]
    assert [one["status"] for one in found["trials"]] == ["Scored"] * 4 + ["Refused"] * 2
    best = max(found["trials"][:4], key=lambda one: (float(one["mean"]), -one["index"]))
    assert found["best"] == {key: best[key] for key in ("index", "mean", "parameters")}

    said = tuned["status"]["tuning"]
    assert (said["trials"], said["scored"], said["best"], said["score"]) == (TRIALS, 4, best["index"], best["mean"])
    assert said["parameters"] == best["parameters"]
    active = shop.model(NAME)["status"]["active"]
    assert active["artifactDigest"] == tuned["status"]["artifact"]["digest"] == told["artifact"]["digest"]
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
    with shop.kube.forward(NAMESPACE, NAME, 80) as port:
        reply = httpx.post(f"http://127.0.0.1:{port}/v2/models/{NAME}/infer", json={"inputs": inputs}, timeout=30)
    assert (reply.status_code, reply.json()["model_version"]) == (200, "1")


@pytest.mark.full
def test_undisturbed_it_chooses_the_same_and_makes_the_same_artifact(shop: Shop, tuned: Json) -> None:
    shop.kube.kubectl("annotate", "models.truekeep.dev", NAME, "truekeep.dev/retrain=again", "-n", NAMESPACE)
    shop.until("a second run", 30, lambda: len(shop.runs(NAME)) == 2)
    shop.until("it to end", 120, lambda: shop.runs(NAME)[-1].get("status", {}).get("completionTime"))
    again = shop.runs(NAME)[-1]
    assert again["status"]["tuning"] == tuned["status"]["tuning"]
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        first, second = (record(stage, run) for run in (tuned, again))
    scores = [[one["scores"] for one in each["training"]["tuning"]["trials"]] for each in (first, second)]
    assert scores[0] == scores[1]
    assert again["status"]["artifact"]["digest"] == tuned["status"]["artifact"]["digest"]
