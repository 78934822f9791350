"""Runs of Models that name a queue begin when Kueue lets them, are set aside when it wants, and are never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import environment, install
from tests.e2e.shop import Shop, open_shop, parameters, small_model
from tests.kueue import kueue
from tests.story.kube import Json, Kube, condition

pytestmark = pytest.mark.full
NAMESPACE = "truekeep-e2e-kueue"
QUEUE = "trainers"
MODELS = ("first", "second")
API_VERSION = "kueue.x-k8s.io/v1beta1"
ROOM = "30m"  # of CPU: for one training pod, and not for two
FLAVOR: Json = {"apiVersion": API_VERSION, "kind": "ResourceFlavor", "metadata": {"name": "e2e"}}
CLUSTER_QUEUE: Json = {
    "apiVersion": API_VERSION,
    "kind": "ClusterQueue",
    "metadata": {"name": "e2e"},
    "spec": {
        "namespaceSelector": {},
        "resourceGroups": [
            {
                "coveredResources": ["cpu", "memory"],
                "flavors": [
                    {
                        "name": "e2e",
                        "resources": [
                            {"name": "cpu", "nominalQuota": ROOM},
                            {"name": "memory", "nominalQuota": "64Gi"},
                        ],
                    }
                ],
            }
        ],
    },
}
LOCAL_QUEUE: Json = {
    "apiVersion": API_VERSION,
    "kind": "LocalQueue",
    "metadata": {"name": QUEUE},
    "spec": {"clusterQueue": "e2e"},
}


@pytest.fixture(scope="module")
def shop(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Kueue, a queue with room for one training pod, and two Models that serve already."""
    variables = environment()
    kubectl = install.Kubectl(variables)
    with (
        kueue(kubectl, Path(variables["KUBECONFIG"]), tmp_path_factory.mktemp("kueue")),
        open_shop(kube, NAMESPACE, {name: small_model(name) for name in MODELS}) as shop,
    ):
        shop.apply(FLAVOR, CLUSTER_QUEUE, LOCAL_QUEUE)
        yield shop


def under_way(shop: Shop) -> list[str]:
    """Models whose training Job was let go and did not end."""
    jobs = [job for name in MODELS for job in shop.jobs(name)]
    return [
        job["metadata"]["labels"]["truekeep.dev/model"]
        for job in jobs
        if not job["spec"].get("suspend") and not {"succeeded", "failed"} & job["status"].keys()
    ]


def waiting(shop: Shop) -> list[str]:
    """What the runs say that wait for the queue."""
    runs = [run for name in MODELS for run in shop.runs(name) if run.get("status", {}).get("conditions")]
    ready = [condition(run, "Ready") for run in runs]
    return [each["message"] for each in ready if each["reason"] == "Suspended"]


def queued(**values: str) -> Json:
    """A change that is to be trained by way of the queue."""
    return {"training": {**parameters(**values)["training"], "queueName": QUEUE}}


def test_as_many_train_at_once_as_the_queue_has_room_for(shop: Shop) -> None:
    most = 0
    said: set[str] = set()

    def done() -> bool:
        nonlocal most
        most = max(most, len(under_way(shop)))
        said.update(waiting(shop))
        return all((shop.model(name)["status"].get("active") or {}).get("revision") == 2 for name in MODELS)

    for name in MODELS:
        shop.patch(name, queued(max_iter="13"))
    shop.until("both to be trained, one after the other", 300, done)
    assert most == 1
    assert any(f"until Kueue admits it from its queue {QUEUE}" in each for each in said), said
    assert [len(shop.runs(name)) for name in MODELS] == [2, 2]


def test_a_run_that_kueue_sets_aside_goes_on_as_the_same_run(shop: Shop) -> None:
    name = MODELS[0]
    shop.patch(name, queued(max_iter="3000"))  # long enough to be interrupted
    shop.until("it to train", 120, lambda: under_way(shop) == [name])
    (job,) = (each for each in shop.jobs(name) if not each["spec"].get("suspend") and "succeeded" not in each["status"])
    kind = "workloads.kueue.x-k8s.io"
    workloads = json.loads(shop.kube.kubectl("get", kind, "-n", NAMESPACE, "-o", "json"))["items"]
    (its,) = (
        each["metadata"]["name"]
        for each in workloads
        if each["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    )

    def active(flag: bool) -> None:
        patch = json.dumps({"spec": {"active": flag}})
        shop.kube.kubectl("patch", kind, its, "-n", NAMESPACE, "--type=merge", f"--patch={patch}")

    with shop.unharmed(name):
        active(False)
        shop.until("the run to say that it waits", 60, lambda: waiting(shop))
        assert not under_way(shop)
        active(True)
        shop.until("it to train again", 120, lambda: under_way(shop) == [name])
    shop.ready(name, 3)
    assert len(shop.runs(name)) == 3
    assert [each["metadata"]["uid"] for each in shop.jobs(name)].count(job["metadata"]["uid"]) == 1
