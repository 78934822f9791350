"""Back from a bad revision, measured by clients that keep their connections: HTTP and gRPC, busy ones and rare ones.

From the verdict on, the last reply of the bad revision comes within five seconds, and no request fails, whatever else
is broken meanwhile: the store, the operator, or another rollout."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.replies import Figures, Loaded, under_load
from tests.e2e.shop import Shop, merged, open_shop, parameters, small_model
from tests.e2e.test_kills import kill_operator
from tests.story.kube import Json, Kube, KubectlError, condition, name_of

NAMESPACE = "truekeep-e2e-rollback"
MODEL = "wheel"
SECONDS = 5  # from the verdict to the last bad reply
SERVING = f"truekeep.dev/model={MODEL},app.kubernetes.io/component=server"
BLUE_GREEN: Json = {"serving": {"replicas": 2, "rollout": {"strategy": "BlueGreen"}, "rollbackWindowSeconds": 3600}}
NEW_FEATURE = {
    "data": {
        "features": [
            *small_model(MODEL)["spec"]["data"]["features"],
            {"name": "payments_24h", "type": "Number", "nulls": "Refuse"},
        ]
    }
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """One Model with two revisions."""
    with open_shop(kube, NAMESPACE, {MODEL: merged(small_model(MODEL), {"spec": BLUE_GREEN})}) as shop:
        shop.patch(MODEL, parameters(max_iter="13"))
        shop.ready(MODEL, 2)
        yield shop


@pytest.fixture(scope="module")
def loaded(shop: Shop) -> Iterator[Loaded]:
    """The load, all the while."""
    with under_load(shop, MODEL) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def resources(shop: Shop) -> Json:
    """The pods' as they are stored, defaults included: another amount is another way of serving."""
    stored: Json = shop.model(MODEL)["spec"]["serving"]["resources"]
    return {"limits": None, **stored}


@pytest.fixture
def live(shop: Shop, loaded: Loaded, resources: Json) -> Shop:
    """Revision 2 answers everybody, revision 1 is warm."""
    serving = {**BLUE_GREEN["serving"], "pinnedRevision": None, "resources": resources}
    features = small_model(MODEL)["spec"]["data"]["features"]
    shop.patch(MODEL, {"data": {"features": features}, "serving": serving, **parameters(max_iter="13")})
    shop.ready(MODEL, 2, seconds=120)
    status = shop.model(MODEL)["status"]
    if not status.get("previous"):  # the way back ended its warmth: there and back again
        switch(shop, 1)
        switch(shop, None, 2)
        status = shop.model(MODEL)["status"]
    assert status["previous"]["revision"] == 1
    loaded.settled()
    return shop


def switch(shop: Shop, pin: int | None, revision: int | None = None) -> None:
    """Pin, or unpin, and wait until that revision answers."""
    shop.patch(MODEL, {"serving": {"pinnedRevision": pin}})
    shop.ready(MODEL, revision or pin, seconds=120)


class Selector(threading.Thread):
    """Notes when the Service's selector named another Deployment."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self._end = threading.Event()
        self.switches: list[tuple[float, str]] = []

    def run(self) -> None:
        while not self._end.is_set():
            service = self._shop.kube.get(self._shop.namespace, "services", MODEL) or {}
            named = service.get("spec", {}).get("selector", {}).get("truekeep.dev/deployment", "")
            if not self.switches or named != self.switches[-1][1]:
                self.switches.append((time.time(), named))
            self._end.wait(0.1)

    def stop(self) -> None:
        self._end.set()
        self.join()


@contextlib.contextmanager
def selector(shop: Shop) -> Iterator[Selector]:
    """When the selector moved, within the context."""
    watch = Selector(shop)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def times(shop: Shop, reason: str) -> int:
    """How often an Event of the Model was told."""
    return sum(1 for event in shop.events("Model", MODEL) if event["reason"] == reason)


def judged(what: str, figures: Figures, record: Callable[[str, object], None]) -> None:
    """Says the figures, and that they are good enough."""
    print(f"\n{what}: {figures}")
    record(what, str(figures))
    assert figures.failed == [], figures.failed[:10]
    assert figures.requests > 100, "there was hardly any load"
    assert figures.verdict_to_last < SECONDS, figures


def warm(shop: Shop, revision: int) -> Json:
    """The Deployment of a revision."""
    found = shop.kube.list(
        shop.namespace, "deployments", f"truekeep.dev/model={MODEL},truekeep.dev/revision={revision}"
    )
    return found[-1]


@pytest.mark.parametrize(
    ("how", "spec"),
    [
        pytest.param("by a pin", {"serving": {"pinnedRevision": 1}}, id="pin"),
        pytest.param("by a revert", parameters(max_iter="12"), id="revert", marks=pytest.mark.full),
    ],
)
def test_in_the_window(
    live: Shop, loaded: Loaded, record_property: Callable[[str, object], None], how: str, spec: Json
) -> None:
    began = time.time()
    promoted, runs = times(live, "Promoted"), len(live.runs(MODEL))
    live.patch(MODEL, spec)
    live.ready(MODEL, 1, seconds=60)
    loaded.settled()
    judged(f"in the window, {how}", loaded.figures(began, began, bad=2), record_property)
    assert (times(live, "Promoted"), len(live.runs(MODEL))) == (promoted + 1, runs)
    assert warm(live, 2)["spec"]["replicas"] == 0
    assert {reply.revision for reply in loaded.replies(time.time() - 4)} == {1}


def test_while_the_store_is_down(live: Shop, loaded: Loaded, record_property: Callable[[str, object], None]) -> None:
    """Also for a container that ends meanwhile: it comes back from the pod's own copy."""
    began = time.time()
    with store_down(live):
        pod = live.kube.list(live.namespace, "pods", f"{SERVING},truekeep.dev/revision=1")[0]
        verdict = time.time()
        switch(live, 1)
        loaded.settled()
        judged("while the store is down", loaded.figures(began, verdict, bad=2), record_property)
        live.kube.kubectl("exec", name_of(pod), "-n", live.namespace, "--", "sh", "-c", "kill 1")

        def restarted() -> bool:
            now = live.kube.get(live.namespace, "pods", name_of(pod)) or {}
            (container,) = now["status"]["containerStatuses"]
            return bool(container["restartCount"] == 1 and container["ready"])

        live.until("the restarted container to be ready without the store", 90, restarted)
        loaded.settled()
    figures = loaded.figures(began, verdict, bad=2)
    assert figures.failed == [], figures.failed[:10]
    assert {reply.revision for reply in loaded.replies(time.time() - 4)} == {1}


def test_pods_that_are_evicted(live: Shop, loaded: Loaded, record_property: Callable[[str, object], None]) -> None:
    """As a node that is emptied does it: one pod after the other, as the budget allows."""
    began = time.time()
    old = [name_of(pod) for pod in live.kube.list(live.namespace, "pods", f"{SERVING},truekeep.dev/revision=2")]
    assert len(old) == 2
    refusals = 0
    for pod in old:
        while not evicted(live, pod):
            refusals += 1
            assert time.time() < began + 120, f"pod {pod} may not be evicted"
            time.sleep(1)
    assert refusals, "the budget let both go at once"
    live.until("new pods", 60, lambda: warm(live, 2)["status"].get("readyReplicas") == 2)
    loaded.settled()
    judged("evicted", loaded.figures(began, time.time(), bad=1), record_property)


def evicted(shop: Shop, pod: str) -> bool:
    """Whether the pod may go."""
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


@contextlib.contextmanager
def store_down(shop: Shop) -> Iterator[None]:
    """Nothing answers as the store within this."""
    shop.kube.kubectl("scale", "deployment/s3", "--replicas=0", "-n", shop.namespace)
    gone = lambda: not shop.kube.list(shop.namespace, "pods", "app.kubernetes.io/name=s3")  # noqa: E731
    shop.until("the store to be gone", 60, gone)
    yield
    shop.kube.kubectl("scale", "deployment/s3", "--replicas=1", "-n", shop.namespace)
    shop.until(
        "the store to be back",
        60,
        lambda: (shop.kube.get(shop.namespace, "deployments", "s3") or {})["status"].get("readyReplicas"),
    )


@pytest.mark.full
@pytest.mark.parametrize("first", ["the kill", "the verdict"])
def test_with_an_operator_that_is_killed(
    live: Shop, loaded: Loaded, record_property: Callable[[str, object], None], first: str
) -> None:
    """Before it can act on the verdict, or in the middle of that: each step is made once, and all of them."""
    began = time.time()
    promoted, runs = times(live, "Promoted"), len(live.runs(MODEL))
    with selector(live) as watch:
        pin = {"serving": {"pinnedRevision": 1}}
        if first == "the kill":
            kill_operator(live.kube)
            live.patch(MODEL, pin)
        else:
            live.patch(MODEL, pin)
            kill_operator(live.kube)
        live.ready(MODEL, 1, seconds=120)
        loaded.settled()
    assert len(watch.switches) == 2, watch.switches
    judged(f"killed, {first} first", loaded.figures(began, watch.switches[-1][0], bad=2), record_property)
    live.until("one promotion to be told", 20, lambda: times(live, "Promoted") == promoted + 1)
    assert len(live.runs(MODEL)) == runs


@pytest.mark.full
def test_after_the_window(live: Shop, loaded: Loaded, record_property: Callable[[str, object], None]) -> None:
    """The old revision is started first; until it is ready, the bad one goes on, because nothing else could answer."""
    live.patch(MODEL, {"serving": {"rollbackWindowSeconds": 1}})
    live.until("revision 1 to be cold", 60, lambda: not warm(live, 1)["status"].get("replicas"))
    loaded.settled()
    began = time.time()
    with selector(live) as watch:
        switch(live, 1)
        loaded.settled()
    assert len(watch.switches) == 2, watch.switches
    judged("after the window", loaded.figures(began, watch.switches[-1][0], bad=2), record_property)


@pytest.mark.full
def test_while_another_rollout_is_unstable(
    live: Shop, loaded: Loaded, resources: Json, record_property: Callable[[str, object], None]
) -> None:
    """A candidate that is killed for its memory again and again: the way back stays warm, and it is rejected once."""
    tight = {"requests": {"cpu": "20m", "memory": "40Mi"}, "limits": {"memory": "40Mi"}}
    began = time.time()
    live.patch(MODEL, {"serving": {"resources": tight}})
    live.until("a candidate", 30, lambda: live.model(MODEL)["status"].get("candidate"))
    live.until("its pods to end", 90, lambda: any(restarts(pod) for pod in live.pods(MODEL, "server")))
    assert warm(live, 1)["status"].get("readyReplicas") == 2
    verdict = time.time()
    live.patch(MODEL, {"serving": {"resources": resources, "pinnedRevision": 1}})
    live.ready(MODEL, 1, seconds=120)
    loaded.settled()
    judged("while another rollout is unstable", loaded.figures(began, verdict, bad=2), record_property)


def restarts(pod: Json) -> int:
    """Of all containers of a pod."""
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))


@pytest.mark.full
def test_a_bad_revision_in_its_canary(
    live: Shop, loaded: Loaded, record_property: Callable[[str, object], None]
) -> None:
    """It wants a feature that callers do not send, so its replies are errors; it is taken back, and rejected once."""
    steps = {"strategy": "Canary", "steps": [{"weightPercent": 50, "durationSeconds": 30}], "minRequests": 20}
    began = time.time()
    with selector(live) as watch:
        live.patch(MODEL, merged(NEW_FEATURE, {"serving": {"rollout": steps}}))
        ready = live.reason(MODEL, "RolledBack", 240)
        loaded.settled()
    latest = live.model(MODEL)["status"]["latestRevision"]
    assert f"revision {latest}" in ready["message"]
    judged("in the canary", loaded.figures(began, watch.switches[-1][0], bad=latest), record_property)
    rejected = live.model(MODEL)["status"]["rejected"]
    assert [each["revision"] for each in rejected].count(latest) == 1
    time.sleep(10)
    assert live.model(MODEL)["status"]["rejected"] == rejected
    assert condition(live.model(MODEL), "Serving")["status"] == "True"


@pytest.mark.full
def test_a_revision_that_turns_out_bad_when_it_is_live(
    live: Shop, loaded: Loaded, record_property: Callable[[str, object], None]
) -> None:
    """Blue-green, so that no step saw it: the operator counts what it answers, and goes back once, for good."""
    began = time.time()
    with selector(live) as watch:
        live.patch(MODEL, merged(NEW_FEATURE, parameters(max_iter="14")))
        live.until("the new revision to be live", 120, lambda: live.model(MODEL)["status"]["active"]["revision"] > 2)
        bad = live.model(MODEL)["status"]["active"]["revision"]
        live.reason(MODEL, "RolledBack", 120)
        loaded.settled()
    status = live.model(MODEL)["status"]
    assert status["active"]["revision"] == 2
    assert (status["lastFailure"]["revision"], status["lastFailure"]["location"]) == (bad, "Serving")
    judged("turned out bad", loaded.figures(began, watch.switches[-1][0], bad=bad), record_property)
    switches, rejected = len(watch.switches), status["rejected"]
    assert [each["revision"] for each in rejected].count(bad) == 1
    time.sleep(20)
    status = live.model(MODEL)["status"]
    assert (status["active"]["revision"], status["rejected"], switches) == (2, rejected, 3), "no flapping"
