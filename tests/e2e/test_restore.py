"""A cluster is lost, its store is not: the same revision serves again under the same number, and nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.people import Someone, hire
from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage

NAMESPACE = "truekeep-e2e-restore"
MODEL = "lost"
SPEC = {
    "approval": {"mode": "Manual"},
    "serving": {
        "rollout": {"strategy": "BlueGreen"},
        "capture": {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1},
    },
}
RUNS = f"{NAMESPACE}/{MODEL}/runs/"
KEPT = ("revision", "artifact", "record", "metrics", "gates", "data", "trainingFingerprint", "completionTime", "image")


@dataclass
class Loss:
    """The namespace, its store, who approves, and who restores."""

    shop: Shop
    stage: Stage
    ann: Someone
    dora: Someone

    def decided(self, revision: int, word: str) -> None:
        """Ann's word on the revision, once it waits for one."""

        def awaited() -> bool:
            return (self.shop.model(MODEL).get("status", {}).get("awaiting") or {}).get("revision") == revision

        self.shop.until(f"revision {revision} to wait for a decision", 240, awaited)
        done = self.ann.truekeep(word, MODEL, "-m", f"{word} {revision}")
        assert done.returncode == 0, done.stderr

    def kept(self) -> list[str]:
        """What the store's decisions tell, in short."""
        pages = self.stage.bucket("models")
        found = [json.loads(pages.get(info.key)) for info in pages.list(f"{NAMESPACE}/{MODEL}/decisions/")]
        return [f"{one['kind']} {one.get('revision')}" for page in found for one in page["decisions"]]

    def trained(self) -> set[str]:
        """UIDs of the runs that came to a result, ever."""
        keys = [info.key for info in self.stage.bucket("models").list(RUNS)]
        return {key.removeprefix(RUNS).partition("/")[0] for key in keys if key.endswith("/result.json")}

    def restore(self, *words: str) -> Json:
        """What `truekeep restore` says; dora gives it."""
        where = ["--store", "s3://models/", "--endpoint", self.stage.endpoint, "-n", NAMESPACE]
        done = self.dora.truekeep("restore", MODEL, *where, "-o", "json", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        (told,) = json.loads(done.stdout)
        return dict(told)

    def why(self, request_id: str) -> Any:
        """The one decision; everything must hold."""
        endpoint = ["--endpoint", self.stage.endpoint, "-o", "json"]
        done = self.ann.truekeep("why", request_id, "--model", MODEL, "-n", NAMESPACE, *endpoint)
        assert done.returncode == 0, done.stdout + done.stderr
        (decision,) = json.loads(done.stdout)["decisions"]
        assert (decision["recomputed"]["state"], decision["faults"]) == ("Equal", [])
        return decision


@pytest.fixture(scope="module")
def loss(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loss]:
    with open_shop(kube, NAMESPACE, {}) as shop, Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        folder: Path = tmp_path_factory.mktemp("people")
        ann = hire(kube, folder, NAMESPACE, "ann", ["truekeep-approver", "truekeep-viewer"])
        dora = hire(kube, folder, NAMESPACE, "dora", ["truekeep-restorer"])
        yield Loss(shop, stage, ann, dora)


def facts(runs: list[Json]) -> dict[str, Json]:
    """What each run is, but for what a cluster gives it."""
    return {run["metadata"]["name"]: {name: run["status"].get(name) for name in KEPT} for run in runs}


@pytest.mark.full
def test_the_same_revision_serves_again_and_nothing_is_trained(loss: Loss) -> None:
    shop, model = loss.shop, merged(small_model(MODEL), {"spec": SPEC})
    shop.apply(model)
    loss.decided(1, "approve")
    shop.ready(MODEL, 1)
    first = loss.shop.decide(MODEL, "asked-of-1")
    model = merged(model, {"spec": parameters(max_iter="13")})
    shop.apply(model)
    loss.decided(2, "approve")
    shop.ready(MODEL, 2)
    second = loss.shop.decide(MODEL, "asked-of-2")
    shop.until("the captures", 60, lambda: len(list(loss.stage.bucket("lake").list("captures/"))) >= 2)
    model = merged(model, {"spec": parameters(max_iter="14")})
    shop.apply(model)
    loss.decided(3, "reject")
    told = {"Promoted 2", "Rejected 3", "Revision 3"}
    shop.until("the decisions to be kept", 420, lambda: told <= set(loss.kept()))

    before, trained = facts(shop.runs(MODEL)), loss.trained()
    active = shop.model(MODEL)["status"]["active"]
    asked = {name: loss.why(name) for name in ("asked-of-1", "asked-of-2")}
    for plural in ("models.truekeep.dev", "trainingruns.truekeep.dev", "modelapprovals.truekeep.dev"):
        shop.kube.kubectl("delete", plural, "--all", "-n", NAMESPACE, "--wait=true")
    selector = f"truekeep.dev/model={MODEL}"
    shop.until("all of it to go", 90, lambda: not any(
        shop.kube.list(NAMESPACE, kind, selector) for kind in ("deployments", "jobs", "pods", "services")))  # fmt: skip

    assert {row["what"] for row in loss.restore("--dry-run")["runs"]} == {"to be restored"}
    assert shop.runs(MODEL) == []
    said = loss.restore()
    assert (said["latestRevision"], said["answeredLast"], said["applied"]) == (3, 2, False)
    assert {row["run"] for row in said["runs"]} == set(before)
    versions = {run["metadata"]["name"]: run["metadata"]["resourceVersion"] for run in shop.runs(MODEL)}
    assert {row["what"] for row in loss.restore()["runs"]} == {"there already"}
    assert versions.keys() == before.keys()

    shop.apply(model)

    def serves() -> bool:
        return (shop.model(MODEL).get("status", {}).get("active") or {}).get("revision") == 2

    shop.until("revision 2 to serve again", 180, serves)
    status = shop.model(MODEL)["status"]
    assert facts(shop.runs(MODEL)) == before
    assert loss.trained() == trained  # a run that trains leaves a result under its own UID
    assert status["latestRevision"] == 3
    assert (status["active"]["artifactDigest"], status["active"]["run"]) == (active["artifactDigest"], active["run"])
    assert status["active"]["approval"]["approver"] == loss.ann.name
    assert loss.shop.decide(MODEL, "asked-again") == second != first

    def rejected() -> bool:
        conditions = shop.model(MODEL)["status"]["conditions"]
        (approved,) = (one for one in conditions if one["type"] == "Approved")
        return (approved["status"], approved["reason"]) == ("False", "Rejected")

    shop.until("what was rejected to stay so", 30, rejected)
    for name, was in asked.items():
        now = loss.why(name)
        changed = {"answered": 0, "decisions": 0, "notes": 0}
        assert {**now, **changed} == {**was, **changed}
    restored = [run["metadata"]["resourceVersion"] for run in shop.runs(MODEL)]
    assert {row["what"] for row in loss.restore()["runs"]} == {"there already"}
    assert [run["metadata"]["resourceVersion"] for run in shop.runs(MODEL)] == restored
