"""What a policy finds is told to a webhook, once, with the token that was named and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.shop import Shop, script_pod
from tests.story.kube import Json, Kube, condition, image_names, load, name_of
from tests.story.stage import EXAMPLES

NAMESPACE = "truekeep-e2e-webhook"
TOKEN = "a-token-of-the-test"


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A namespace with a receiver and a Secret; no Model, which is what its policies complain of."""
    document = load(EXAMPLES / "namespace.yaml")[0]
    document["metadata"]["name"] = NAMESPACE
    kube.fresh_namespace(document)
    shop = Shop(kube, NAMESPACE)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "receiver"},
        "spec": {"selector": {"app.kubernetes.io/name": "receiver"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pager"},
        "stringData": {"token": TOKEN, "other": "nobody's business"},
    }
    script = Path(__file__).with_name("receiver.py")
    shop.apply(service, secret, *script_pod("receiver", image_names()["tools"], script, {}))
    shop.until("the receiver", 60, lambda: shop.running("receiver"))
    yield shop
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def policy(name: str, **webhook: object) -> Json:
    """A policy for a Model that is not there."""
    spec = {"modelRef": {"name": "missing"}, "schedule": "0 0 1 1 *", "window": {"hours": 24}, "webhook": webhook}
    return {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def received(shop: Shop, name: str) -> list[Json]:
    """What the receiver took about a policy."""
    lines = shop.kube.logs(NAMESPACE, "receiver", 50).splitlines()
    return [each for each in map(json.loads, lines) if each["event"]["data"]["policy"] == name]


def notified(shop: Shop, name: str) -> Json:
    return condition(shop.kube.get(NAMESPACE, "driftpolicies", name) or {}, "Notified")


def test_a_policy_that_cannot_watch_tells_it_with_its_token(shop: Shop) -> None:
    url = f"http://receiver.{NAMESPACE}.svc/events"
    shop.apply(policy("told", url=url, tokenSecretRef={"name": "pager"}))
    shop.until("the event", 90, lambda: received(shop, "told"))
    shop.until("the condition", 30, lambda: notified(shop, "told").get("reason") == "Delivered")
    (one,) = received(shop, "told")
    event, headers = one["event"], one["headers"]
    assert event["type"] == "dev.truekeep.policy.alert"
    assert (event["data"]["condition"], event["data"]["reason"]) == ("Stalled", "ModelNotFound")
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    (pod,) = shop.kube.list(NAMESPACE, "pods", "app.kubernetes.io/component=notice,truekeep.dev/policy=told")
    assert pod["spec"]["automountServiceAccountToken"] is False
    mounted = [v["secret"] for v in pod["spec"]["volumes"] if "secret" in v]
    assert [(s["secretName"], [i["key"] for i in s["items"]]) for s in mounted] == [("pager", ["token"])]
    assert TOKEN not in json.dumps(pod)


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("metadata", "http://169.254.169.254/latest/", r"169\.254\.169\.254.*credentials"),
        ("itself", "http://localhost:8080/", "loopback"),
        ("redirect", f"http://receiver.{NAMESPACE}.svc/elsewhere", "redirect is not followed"),
    ],
)
def test_addresses_that_are_not_for_it_are_refused_and_said(shop: Shop, name: str, url: str, words: str) -> None:
    shop.apply(policy(name, url=url))
    shop.until("a verdict", 90, lambda: notified(shop, name).get("status") == "False")
    found = notified(shop, name)
    assert found["reason"] == "NotDelivered"
    assert re.search(words, found["message"]), found["message"]
    assert "mend spec.webhook" in found["message"]
    assert not received(shop, name)
    jobs = shop.kube.list(NAMESPACE, "jobs", f"truekeep.dev/policy={name}")
    assert len(jobs) == 1
    assert jobs[0]["status"].get("failed") == 1, f"{name_of(jobs[0])}: another try can't help"
