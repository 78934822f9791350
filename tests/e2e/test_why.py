"""An auditor asks about a decision: while its revision serves, after another one does, and when the Model is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.people import Someone, hire
from tests.e2e.shop import REQUEST, Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage

NAMESPACE = "truekeep-e2e-why"
MODEL = "asked"
CAPTURE = {"s3": {"uri": "s3://lake/captures/"}, "flushSeconds": 1}


@dataclass
class Audit:
    """The namespace, its store, and who looks."""

    shop: Shop
    stage: Stage
    ann: Someone  # approves

    def asks(self, request_id: str, amount: float) -> float:
        """The answer of whatever serves."""
        inputs = [
            {"name": n, "shape": [1], "datatype": kind, "data": [amount if n == "amount" else value]}
            for n, (kind, value) in REQUEST.items()
        ]
        with self.shop.kube.forward(NAMESPACE, MODEL, 80) as port:
            url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
            reply = httpx.post(url, json={"id": request_id, "inputs": inputs}, timeout=30)
        assert reply.status_code == 200, reply.text
        return float(reply.json()["outputs"][0]["data"][0])

    def why(self, request_id: str, *where: str) -> Any:
        """The one decision, as `truekeep why` tells it; everything must hold."""
        endpoint = ["--endpoint", self.stage.endpoint, "-o", "json"]
        done = self.ann.truekeep("why", request_id, *where, *endpoint)
        assert done.returncode == 0, done.stdout + done.stderr
        (decision,) = json.loads(done.stdout)["decisions"]
        assert decision["recomputed"]["state"] == "Equal", decision["recomputed"]
        assert decision["faults"] == []
        found = decision["attribution"]
        assert found["method"] == "TreeSHAP"
        assert found["base"] + sum(found["values"].values()) == pytest.approx(found["answer"], abs=1e-9)
        return decision

    def approved(self, revision: int) -> None:
        """Wait for the revision, let Ann approve it, and wait until it serves and that is kept."""

        def awaited() -> bool:
            return (self.shop.model(MODEL).get("status", {}).get("awaiting") or {}).get("revision") == revision

        self.shop.until(f"revision {revision} to wait for a decision", 240, awaited)
        done = self.ann.truekeep("approve", MODEL, "-m", f"reviewed revision {revision}")
        assert done.returncode == 0, done.stderr
        self.shop.ready(MODEL, revision)
        kept = self.shop.kube
        selector = f"truekeep.dev/model={MODEL},app.kubernetes.io/component=decisions"

        def told() -> bool:
            jobs = kept.list(NAMESPACE, "jobs", selector)
            words = [pod["spec"]["containers"][0]["env"][0]["value"] for pod in kept.list(NAMESPACE, "pods", selector)]
            promoted = any(
                '"kind":"Promoted","modelUid"' in text and f'"revision":{revision}' in text for text in words
            )
            return promoted and all(job.get("status", {}).get("succeeded") for job in jobs)

        self.shop.until("the decisions to be kept", 120, told)


@pytest.fixture(scope="module")
def audit(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audit]:
    with open_shop(kube, NAMESPACE, {}) as shop, Stage(kube, NAMESPACE, Narrator()) as stage:
        stage.open_store()
        folder: Path = tmp_path_factory.mktemp("people")
        ann = hire(kube, folder, NAMESPACE, "ann", ["truekeep-approver", "truekeep-viewer"])
        spec = {"approval": {"mode": "Manual"}, "serving": {"capture": CAPTURE}}
        shop.apply(merged(small_model(MODEL), {"spec": spec}))
        made = Audit(shop, stage, ann)
        made.approved(1)
        yield made


def test_a_decision_outlives_its_revision_the_model_and_the_clusters_memory(audit: Audit) -> None:
    shop = audit.shop
    score = audit.asks("asked-of-1", 12.5)
    in_cluster = ("--model", MODEL, "-n", NAMESPACE)

    def there() -> bool:
        return any("/revision=1/" in info.key for info in audit.stage.bucket("lake").list("captures/"))

    shop.until("the capture", 60, there)
    first = audit.why("asked-of-1", *in_cluster)
    assert (first["revision"], first["score"], first["features"]["amount"]) == (1, score, 12.5)
    assert first["record"]["content"]["run"]["name"] == first["run"] == shop.runs(MODEL)[0]["metadata"]["name"]
    report = shop.model(MODEL)["status"]["report"]
    assert report == first["report"] == shop.runs(MODEL)[0]["status"]["record"]["report"]
    since = datetime.now(UTC)

    shop.patch(MODEL, parameters(max_iter="13"))
    audit.approved(2)
    audit.asks("asked-of-2", 900.0)
    shop.until("the capture", 60, lambda: audit.ann.truekeep(
        "why", "asked-of-2", *in_cluster, "--endpoint", audit.stage.endpoint).returncode == 0)  # fmt: skip
    again = audit.why("asked-of-1", *in_cluster)
    assert {**again, "answered": 0, "decisions": 0} == {**first, "answered": 0, "decisions": 0}
    assert audit.why("asked-of-2", *in_cluster)["revision"] == 2

    kept = shop.model(MODEL)["status"]["decisions"]
    assert kept["pages"] >= 2
    shop.kube.kubectl("delete", "models.truekeep.dev", MODEL, "-n", NAMESPACE, "--wait=true")
    shop.until("its runs to go", 60, lambda: not shop.runs(MODEL))
    store = ("--store", "s3://models/", "-n", NAMESPACE)
    last = audit.why("asked-of-1", *store, "--model", MODEL)  # the store's decisions say where the captures are
    assert (last["revision"], last["score"], last["artifact"]) == (1, score, first["artifact"])
    told = {(one["kind"], one.get("approver")) for one in last["decisions"]}
    assert ("Approved", audit.ann.name) in told
    assert last["answered"][0]["until"] is not None  # revision 2 took over
    assert audit.why("asked-of-2", *store, "--captures", "s3://lake/captures/")["answered"][-1]["until"] is None
    endpoint = ["--endpoint", audit.stage.endpoint]
    for moment, revision in ((since, 1), (datetime.now(UTC), 2)):
        at = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        done = audit.ann.truekeep("lineage", MODEL, *store, "--at", at, "-o", "json", *endpoint)
        assert done.returncode == 0, done.stderr
        (entry,) = json.loads(done.stdout)
        assert (entry["revision"], entry["decisions"][0]["approver"]) == (revision, audit.ann.name)
        assert entry["decisions"][0]["reason"] == f"reviewed revision {revision}"
        assert entry["data"]["rows"] > 500


def test_a_request_that_was_never_captured_says_so(audit: Audit) -> None:
    store = ("--store", "s3://models/", "--captures", "s3://lake/captures/", "-n", NAMESPACE)
    done = audit.ann.truekeep("why", "nobody", *store, "--endpoint", audit.stage.endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"capture files of {NAMESPACE}/{MODEL} that were searched" in done.stderr
