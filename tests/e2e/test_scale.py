"""As many pods as the load asks for, by an autoscaler or by hand, and one more while a node is emptied; with callers
who notice nothing of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cluster import add_addon
from tests.e2e.load import Load
from tests.e2e.shop import REQUEST, Shop, merged, open_shop, parameters, script_pod, small_model
from tests.story.kube import Json, Kube, KubectlError, condition, image_names, name_of

pytestmark = pytest.mark.full  # metrics-server is built for it, and a peak takes minutes
NAMESPACE = "truekeep-e2e-scale"
TIDE, POND = "tide", "pond"  # one that is scaled by its load, one by hand
MOST = 3
SERVING: Json = {
    "autoscaling": {"minReplicas": 1, "maxReplicas": MOST, "cpuPercent": 60, "scaleDownSeconds": 15},
    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    "rollbackWindowSeconds": 5,
}
CLIENTS = [0.002] * 6  # each asks again after so many seconds: several times what one pod may do
PEAK_SECONDS = 50
CORDON = "ToBeDeletedByClusterAutoscaler=drill:PreferNoSchedule"  # the mark of a node that goes, which keeps no pod off


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """Both Models, and what measures the CPU of pods."""
    add_addon("metrics-server")
    models = {TIDE: merged(small_model(TIDE), {"spec": {"serving": SERVING}}), POND: small_model(POND)}
    with open_shop(kube, NAMESPACE, models) as shop:
        yield shop


def deployment(shop: Shop, model: str) -> Json:
    """The live revision's."""
    return shop.kube.get(shop.namespace, "deployments", shop.model(model)["status"]["active"]["deployment"]) or {}


def ready(shop: Shop, model: str) -> int:
    return int(deployment(shop, model).get("status", {}).get("readyReplicas", 0))


def scaled(shop: Shop) -> Json:
    return (shop.kube.get(shop.namespace, "horizontalpodautoscalers", TIDE) or {})["spec"]


def peak(shop: Shop, seconds: float) -> None:
    """A pod that asks much for a while."""
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
    load = Load(TIDE, TIDE, inputs, seconds, CLIENTS, [], [])
    script = Path(__file__).with_name("load.py")
    shop.apply(*script_pod("peak", image_names()["server"], script, {"LOAD": json.dumps(asdict(load))}))


def peaked(shop: Shop) -> list[Json]:
    """What the pod of the peak wrote down: time, client, revision, milliseconds, error."""
    text = shop.kube.kubectl("logs", "peak", "-n", shop.namespace, timeout=60)
    return [json.loads(line) for line in text.splitlines() if line.startswith("[")]


def test_a_peak_brings_pods_and_its_end_takes_them_and_no_request_fails(shop: Shop) -> None:
    shop.until("the autoscaler to see the pods", 120, lambda: condition(shop.model(TIDE), "Scaled")["status"] == "True")
    shop.until("one pod at rest", 120, lambda: ready(shop, TIDE) == 1)
    live = name_of(deployment(shop, TIDE))
    assert scaled(shop)["scaleTargetRef"]["name"] == live
    with shop.unharmed(TIDE):
        began = time.monotonic()
        peak(shop, PEAK_SECONDS)
        shop.until("more pods under the peak", PEAK_SECONDS + 20, lambda: ready(shop, TIDE) >= 2)
        up = time.monotonic() - began
        shop.until("the end of the peak", PEAK_SECONDS + 60, lambda: finished(shop, "peak"))
        ended = time.monotonic()
        most = deployment(shop, TIDE)["spec"]["replicas"]
        shop.until("fewer pods after the peak", 150, lambda: deployment(shop, TIDE)["spec"]["replicas"] == 1)
        down = time.monotonic() - ended
    replies = peaked(shop)
    failed = [reply for reply in replies if reply[4]]
    print(
        f"\n{len(replies)} requests, {len(failed)} failed; 2 pods after {up:.0f} s, {most} at the end of the peak,",
        end=" ",
    )
    print(f"1 after {down:.0f} s more")
    assert len(replies) > 2000, "that was no peak"
    assert failed == []
    assert 2 <= most <= MOST
    pods = shop.model(TIDE)["status"]["replicas"]
    shop.until("the status to say how many pods there are", 40, lambda: shop.model(TIDE)["status"]["replicas"] == 1)
    assert pods <= MOST


def finished(shop: Shop, pod: str) -> bool:
    return ((shop.kube.get(shop.namespace, "pods", pod) or {}).get("status") or {}).get("phase") == "Succeeded"


def test_the_autoscaler_goes_with_the_switch(shop: Shop) -> None:
    before = name_of(deployment(shop, TIDE))
    with shop.unharmed(TIDE):
        shop.patch(TIDE, merged(parameters(max_iter="13"), {"serving": {"autoscaling": {"minReplicas": 2}}}))
        shop.ready(TIDE, 2)
    after = name_of(deployment(shop, TIDE))
    assert after != before
    assert scaled(shop)["scaleTargetRef"]["name"] == after


def test_a_deployment_that_is_restored_keeps_the_pods_that_it_has(shop: Shop) -> None:
    """Replicas that the operator leaves out of its apply, and that no autoscaler changed yet, must not fall to 1."""
    name = name_of(deployment(shop, TIDE))
    seen: set[int] = set()
    shop.kube.kubectl(
        "patch", "deployment", name, "-n", NAMESPACE, "--type=merge", '--patch={"spec":{"minReadySeconds":3}}'
    )

    def restored() -> bool:
        spec = deployment(shop, TIDE)["spec"]
        seen.add(spec["replicas"])
        return not spec.get("minReadySeconds")

    shop.until("the Deployment to be as it was", 60, restored)
    time.sleep(3)
    restored()
    assert seen == {2}


def test_scale_says_who_decides(shop: Shop) -> None:
    with pytest.raises(KubectlError, match=r"serving\.autoscaling decides about the number of pods"):
        shop.kube.kubectl("scale", "models.truekeep.dev", TIDE, "--replicas=2", "-n", shop.namespace)


def test_by_hand_through_the_scale_subresource(shop: Shop) -> None:
    def to(replicas: int) -> None:
        shop.kube.kubectl("scale", "models.truekeep.dev", POND, f"--replicas={replicas}", "-n", shop.namespace)
        shop.until(
            f"{replicas} pods of {POND}",
            60,
            lambda: ready(shop, POND) == replicas == shop.model(POND)["status"]["replicas"],
        )

    with shop.unharmed(POND):
        to(2)
        assert budget(shop) == {"maxUnavailable": 1}
        to(1)
        assert budget(shop) == {"minAvailable": 1}


def budget(shop: Shop) -> Json:
    spec = (shop.kube.get(shop.namespace, "poddisruptionbudgets", POND) or {})["spec"]
    return {key: value for key, value in spec.items() if key in ("minAvailable", "maxUnavailable")}


def test_an_emptied_node_cuts_nobody_off_where_there_is_one_pod(shop: Shop) -> None:
    shop.until("one pod, and no leaving one", 90, lambda: len(shop.pods(POND, "server")) == 1)
    (pod,) = shop.pods(POND, "server")
    assert not evict(shop, name_of(pod)), "the only pod may not go"
    with shop.unharmed(POND), emptied(shop, pod["spec"]["nodeName"]):
        shop.until("a second pod", 90, lambda: ready(shop, POND) == 2)
        shop.until("the pod to be let go", 20, lambda: evict(shop, name_of(pod)))
        shop.until("it to be gone", 90, lambda: name_of(pod) not in [name_of(p) for p in shop.pods(POND, "server")])
    shop.until("one pod again", 90, lambda: len(shop.pods(POND, "server")) == 1)


@contextlib.contextmanager
def emptied(shop: Shop, node: str) -> Iterator[None]:
    """The node bears the mark of one that is to go, within the context."""
    shop.kube.kubectl("taint", "node", node, CORDON, "--overwrite")
    try:
        yield
    finally:
        shop.kube.kubectl("taint", "node", node, f"{CORDON.partition('=')[0]}-")


def evict(shop: Shop, pod: str) -> bool:
    """Whether the pod may go, and goes."""
    about = {"metadata": {"name": pod, "namespace": shop.namespace}}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", **about})
    path = f"/api/v1/namespaces/{shop.namespace}/pods/{pod}/eviction"
    try:
        shop.kube.kubectl("create", "--raw", path, "--filename=-", stdin=eviction)
    except KubectlError as error:
        if "disruption budget" in str(error):
            return False
        raise
    return True
