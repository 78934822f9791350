"""Weights and copies at a Gateway: with the Gateway API's own kinds on the real API server. What a Gateway's controller
would say is said by the test; there is no data plane."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from tests.cluster import add_addon, remove_addon
from tests.e2e.shop import REQUEST, Shop, merged, open_shop, parameters, small_model
from tests.story.kube import Json, Kube, KubectlError, condition, name_of

NAMESPACE = "truekeep-e2e-gateway"
MODEL = "ferry"
CANARY: Json = {
    "gateway": {"name": "public", "namespace": "gateways", "hostnames": ["models.example.com"], "pathPrefix": "/ferry"},
    "rollout": {"steps": [{"weightPercent": 10, "durationSeconds": 4}, {"weightPercent": 50, "durationSeconds": 4}]},
    "rollbackWindowSeconds": 5,
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model that names a Gateway, in a cluster that has not even the kinds."""
    remove_addon("gateway-api")
    model = merged(small_model(MODEL), {"spec": {"serving": CANARY}})
    with open_shop(kube, NAMESPACE, {MODEL: small_model(MODEL)}) as shop:
        shop.apply(model)
        yield shop
    remove_addon("gateway-api")


@dataclass(eq=False)
class Controller(threading.Thread):
    """A Gateway's controller, as far as routes hear from it."""

    shop: Shop
    accepts: bool = True
    troubles: list[str] = field(default_factory=list)
    taken: list[Json] = field(default_factory=list)  # each version of the route that it accepted: weights and mirror

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.5):
            self.answer()

    def answer(self) -> None:
        """Say of the route's present version what it is to hear, once."""
        route = self.shop.kube.get(NAMESPACE, "httproutes", MODEL)
        if route is None or self._said(route):
            return
        spec, about = route["spec"], route["metadata"]
        verdict = ("True", "Accepted") if self.accepts else ("False", "NotAllowedByListeners")
        conditions = [
            self._condition("Accepted", *verdict, about),
            self._condition("ResolvedRefs", "True", "Ok", about),
        ]
        status = {
            "parents": [
                {"parentRef": spec["parentRefs"][0], "controllerName": "example.com/e2e", "conditions": conditions}
            ]
        }
        patch = json.dumps({"metadata": {"resourceVersion": about["resourceVersion"]}, "status": status})
        kubectl = self.shop.kube.kubectl
        try:
            kubectl(
                "patch", "httproutes.gateway.networking.k8s.io", MODEL, "-n", NAMESPACE, "--subresource=status",
                "--type=merge", f"--patch={patch}",
            )  # fmt: skip
        except KubectlError as error:
            if "has been modified" not in str(error):  # else: the next look
                self.troubles.append(str(error))
            return
        if self.accepts:
            (rule,) = spec["rules"]
            copies = [each["requestMirror"] for each in rule["filters"] if each["type"] == "RequestMirror"]
            mirrors = [each["backendRef"]["name"] for each in copies]
            self.taken.append({"weights": {b["name"]: b["weight"] for b in rule["backendRefs"]}, "mirrors": mirrors})

    def _said(self, route: Json) -> bool:
        wanted = "True" if self.accepts else "False"
        parents = (route.get("status") or {}).get("parents") or []
        return any(
            each["type"] == "Accepted"
            and (each["status"], each.get("observedGeneration")) == (wanted, route["metadata"]["generation"])
            for parent in parents
            for each in parent["conditions"]
        )

    def _condition(self, kind: str, status: str, reason: str, about: Json) -> Json:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"message": "said by a test", "lastTransitionTime": moment, "observedGeneration": about["generation"]}
        return {"type": kind, "status": status, "reason": reason, **said}

    def stop(self) -> None:
        self._end.set()
        self.join()


@contextlib.contextmanager
def controller(shop: Shop, accepts: bool = True) -> Iterator[Controller]:
    """It is at work within the context."""
    thread = Controller(shop, accepts)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()
    assert thread.troubles == []


def routed(shop: Shop, status: str, reason: str, seconds: float = 60) -> Json:
    """The condition Routed, once it says so."""

    def look() -> bool:
        said = condition(shop.model(MODEL), "Routed")
        return (said["status"], said["reason"]) == (status, reason)

    shop.until(f"Routed {status} {reason}", seconds, look)
    return condition(shop.model(MODEL), "Routed")


def deployment(shop: Shop) -> str:
    return str(shop.model(MODEL)["status"]["active"]["deployment"])


def selected(shop: Shop) -> str | None:
    """The Deployment that the stable Service names; None for all of the Model's."""
    service = shop.kube.get(NAMESPACE, "services", MODEL) or {}
    found: str | None = service["spec"]["selector"].get("truekeep.dev/deployment")
    return found


def test_without_the_kinds_it_serves_says_so_and_goes_on_once_they_are_there(shop: Shop) -> None:
    words = routed(shop, "False", "GatewayApiMissing")["message"]
    assert "install the Gateway API's CRDs" in words
    assert condition(shop.model(MODEL), "Serving")["status"] == "True"
    shop.reason(MODEL, "GatewayApiMissing", 30)
    with shop.unharmed(MODEL):
        add_addon("gateway-api")
        shop.until("the route", 60, lambda: shop.kube.get(NAMESPACE, "httproutes", MODEL))
    route = shop.kube.get(NAMESPACE, "httproutes", MODEL) or {}
    (rule,) = route["spec"]["rules"]
    assert [(each["name"], each["weight"]) for each in rule["backendRefs"]] == [(deployment(shop), 100)]
    assert route["metadata"]["ownerReferences"][0]["kind"] == "Model"
    assert route["spec"]["hostnames"] == ["models.example.com"]


def test_a_gateway_that_refuses_is_quoted(shop: Shop) -> None:
    with controller(shop, accepts=False):
        words = routed(shop, "False", "GatewayRefused")["message"]
    assert "gateways/public" in words
    assert "NotAllowedByListeners: said by a test" in words


def test_a_canary_goes_by_the_weights_that_the_gateway_took(shop: Shop) -> None:
    reached: set[int] = set()
    asked: set[int] = set()
    selectors: set[str | None] = set()
    old = deployment(shop)
    with controller(shop) as gateway, shop.unharmed(MODEL):
        routed(shop, "True", "Accepted")
        shop.ready(MODEL)
        shop.patch(MODEL, parameters(max_iter="13"))

        def promoted() -> bool:
            status = shop.model(MODEL)["status"]
            candidate = status.get("candidate") or {"step": -1}
            reached.add(candidate.get("reachedPercent", 0))
            if candidate.get("stepSince") and candidate["step"] not in asked:
                asked.add(candidate["step"])
                ask(shop, candidate["deployment"], 20)
            selectors.add(selected(shop))
            live: int = status["active"]["revision"]
            return live == 2

        shop.until("revision 2 to be live", 240, promoted)
        new = deployment(shop)
        shop.until("all of the weight on it", 30, lambda: gateway.taken[-1]["weights"] == {new: 100})
        shop.ready(MODEL, 2)
    weights = [each["weights"] for each in gateway.taken]
    for each in ({old: 100}, {old: 90, new: 10}, {old: 50, new: 50}, {new: 100}):
        assert each in weights, f"{each} is none of {weights}"
    assert {10, 50} <= reached
    assert None not in selectors, "the Service named the candidate's pods, too"
    shop.until(
        "the old pods to go", 60, lambda: not shop.kube.list(NAMESPACE, "pods", f"truekeep.dev/deployment={old}")
    )


def ask(shop: Shop, service: str, times: int) -> None:
    """What a data plane would do with its copies: send them to a Service."""
    (pod,) = shop.kube.list(NAMESPACE, "pods", "app.kubernetes.io/name=probe")
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in REQUEST.items()]
    url = f"http://{service}/v2/models/{MODEL}/infer"
    script = (
        "import httpx\n"
        f"for _ in range({times}):\n"
        f"    httpx.post({url!r}, json={{'inputs': {inputs!r}}}).raise_for_status()\n"
    )
    shop.kube.kubectl("exec", name_of(pod), "-n", NAMESPACE, "--", "python3", "-c", script)


@pytest.mark.full
def test_a_shadow_is_judged_by_copies_and_then_promoted(shop: Shop) -> None:
    add_addon("gateway-api")  # where it runs without those before
    old, before = deployment(shop), shop.model(MODEL)["status"]["active"]["revision"]
    with controller(shop) as gateway, shop.unharmed(MODEL):
        routed(shop, "True", "Accepted")
        shadow = {"serving": {"rollout": {"strategy": "Shadow", "shadowSeconds": 8, "steps": None}}}
        shop.patch(MODEL, merged(parameters(max_iter="14"), shadow))
        shop.until("a copy for the candidate", 240, lambda: gateway.taken and gateway.taken[-1]["mirrors"])
        taken = gateway.taken[-1]
        (new,) = taken["mirrors"]
        assert taken["weights"] == {old: 100}
        ask(shop, new, 30)
        shop.ready(MODEL, before + 1)
        shop.until("all of the weight on it", 30, lambda: gateway.taken[-1]["weights"] == {new: 100})
        assert gateway.taken[-1]["mirrors"] == []
    assert shop.model(MODEL)["status"]["lastRollout"]["outcome"] == "Promoted"


def test_the_route_goes_with_the_gateway(shop: Shop) -> None:
    shop.patch(MODEL, {"serving": {"gateway": None, "rollout": {"strategy": "Canary"}}})
    shop.until("the route to go", 60, lambda: shop.kube.get(NAMESPACE, "httproutes", MODEL) is None)
    routed(shop, "Unknown", "NoGateway")
    shop.ready(MODEL)
