"""Each flow that we need is allowed, and nothing else is: our NetworkPolicies, judged on the pods that we build."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.story.kube import ROOT
from tests.unit.manifests.policies import End, allowed
from tests.unit.resources.samples import CREATED, PLAIN, SETTINGS, built, model
from truekeep.resources.newdata_cronjob import newdata_cronjob

Json = dict[str, Any]
MANIFESTS = ROOT / "manifests"
TEAM = "shop"


def policies(*files: str, namespace: str) -> list[Json]:
    found = []
    for file in files:
        for each in yaml.safe_load_all((MANIFESTS / file).read_text()):
            each["metadata"]["namespace"] = namespace
            found.append(each)
    return found


def listed(folder: str) -> list[str]:
    resources = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())["resources"]
    return [f"{folder}/{each}" for each in resources]


OPERATORS = policies("operator/network.yaml", namespace="truekeep-system")
BASE = [*OPERATORS, *policies(*listed("network"), namespace=TEAM)]
WITH_OUTSIDE = [*BASE, *policies(*listed("network/outside"), namespace=TEAM)]


def our_pods() -> dict[str, End]:
    """Every pod that the operator makes, by its component, with the labels that the builders give it."""
    found: dict[str, End] = {}
    counting = newdata_cronjob(model({**PLAIN, "retraining": {"newData": {"minRows": 1}}}), CREATED, SETTINGS)
    assert counting is not None
    for manifest in (*built().values(), counting):
        spec = (manifest or {}).get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            labels = template["metadata"]["labels"]
            component = labels["app.kubernetes.io/component"]
            found[component] = End(f"10.244.0.{10 + len(found)}", TEAM, labels)
    return found


PODS = our_pods()
DEPLOYMENT = yaml.safe_load((MANIFESTS / "operator" / "deployment.yaml").read_text())
SYSTEM = yaml.safe_load((MANIFESTS / "operator" / "namespace.yaml").read_text())["metadata"]
OPERATOR = End("10.244.9.1", SYSTEM["name"], DEPLOYMENT["spec"]["template"]["metadata"]["labels"], SYSTEM["labels"])
IMPOSTOR = End("10.244.9.2", "elsewhere", OPERATOR.labels)
S3 = yaml.safe_load((MANIFESTS / "examples" / "s3" / "deployment.yaml").read_text())
STORE = End("10.244.1.1", "storage", S3["spec"]["template"]["metadata"]["labels"])
DNS = End("10.244.1.2", "kube-system", {"k8s-app": "kube-dns"})
NODE_DNS = End("169.254.20.10")
API_SERVER = End("172.18.0.2")
PROMETHEUS = End("10.244.1.3", "monitoring", {"app.kubernetes.io/name": "prometheus"})
CLIENT = End("10.244.1.4", TEAM, {"app": "shop-front"})
STRANGER = End("10.244.1.5", "elsewhere", {"app": "anything"})
GATEWAY = End("10.244.1.6", "gateways", {"app": "envoy"}, {"truekeep.dev/clients": "Allowed"})
RECEIVER = End("10.244.1.7", "alerts", {"truekeep.dev/webhook": "Allowed"})
CLOUD = End("52.218.1.1")
METADATA = [End(address) for address in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "169.254.170.2")]
JOBS = {name: pod for name, pod in PODS.items() if name != "server"}


def test_the_builders_give_every_component_its_labels() -> None:
    assert {"server", "trainer", "monitor", "newdata", "retention", "decisions", "rehearsal", "notice"} <= {
        *PODS,
        "newdata",
    }
    for pod in PODS.values():
        assert pod.labels["app.kubernetes.io/managed-by"] == "truekeep"


@pytest.mark.parametrize("component", sorted(PODS))
def test_every_pod_gets_names_and_its_store(component: str) -> None:
    pod = PODS[component]
    for port, protocol in ((53, "UDP"), (53, "TCP"), (1053, "UDP")):
        assert allowed(BASE, pod, DNS, port, protocol)
    assert allowed(BASE, pod, NODE_DNS, 53, "UDP")
    assert allowed(BASE, pod, STORE, 7070)
    assert allowed(WITH_OUTSIDE, pod, CLOUD, 443)


@pytest.mark.parametrize("component", sorted(PODS))
def test_no_pod_gets_anything_else(component: str) -> None:
    pod = PODS[component]
    for judged in (BASE, WITH_OUTSIDE):
        assert not allowed(judged, pod, API_SERVER, 6443), "the API server"
        assert not allowed(judged, pod, OPERATOR, 8080), "the operator"
        assert not allowed(judged, pod, STRANGER, 443), "another pod"
        assert not allowed(judged, pod, CLOUD, 25), "a port that is not HTTPS"
        for each in METADATA:
            assert not allowed(judged, pod, each, 80), each.address
            assert not allowed(judged, pod, each, 443), each.address
    assert not allowed(BASE, pod, CLOUD, 443), "outside of the cluster, where nobody asked for it"


@pytest.mark.parametrize("port", [8080, 8081])
def test_servers_answer_their_clients_and_nobody_else(port: int) -> None:
    server = PODS["server"]
    assert allowed(BASE, CLIENT, server, port)
    assert allowed(BASE, GATEWAY, server, port)
    assert not allowed(BASE, STRANGER, server, port)
    assert not allowed(BASE, IMPOSTOR, server, port)
    assert not allowed(BASE, CLIENT, server, 9000), "a team's own server, past ours"


def test_the_operator_and_prometheus_read_figures_alone() -> None:
    assert allowed(BASE, OPERATOR, PODS["server"], 8080)
    assert not allowed(BASE, OPERATOR, PODS["server"], 8081)
    assert allowed(BASE, OPERATOR, PROMETHEUS, 9090)
    assert allowed(BASE, PROMETHEUS, PODS["server"], 8080)
    assert allowed(BASE, PROMETHEUS, OPERATOR, 8080)
    assert not allowed(BASE, PROMETHEUS, PODS["server"], 8081)
    assert not allowed(BASE, PROMETHEUS, PODS["trainer"], 8080)


@pytest.mark.parametrize("component", sorted(JOBS))
def test_nobody_asks_a_job_and_only_a_rehearsal_asks_a_server(component: str) -> None:
    for other in (CLIENT, GATEWAY, STRANGER, PROMETHEUS, OPERATOR, *PODS.values()):
        assert not allowed(BASE, other, JOBS[component], 8080)
    assert allowed(BASE, JOBS[component], PODS["server"], 8080) is (component == "rehearsal")


@pytest.mark.parametrize("component", sorted(PODS))
def test_only_a_notice_goes_to_a_receiver(component: str) -> None:
    assert allowed(BASE, PODS[component], RECEIVER, 8080) is (component == "notice")


def test_the_operator_gets_names_and_the_api_server_and_nothing_of_a_models() -> None:
    assert allowed(BASE, OPERATOR, DNS, 53, "UDP")
    for port in (443, 6443):
        assert allowed(BASE, OPERATOR, API_SERVER, port)
    assert not allowed(BASE, OPERATOR, STORE, 7070)
    assert not allowed(BASE, OPERATOR, API_SERVER, 2379)
    for each in METADATA:
        assert not allowed(BASE, OPERATOR, each, 443), each.address
    assert not allowed(BASE, CLIENT, OPERATOR, 8080)


def test_pods_of_others_stay_as_they_are() -> None:
    assert allowed(BASE, CLIENT, STRANGER, 1234)
    assert allowed(BASE, STRANGER, CLIENT, 1234)


@pytest.mark.parametrize("dropped", sorted({each["metadata"]["name"] for each in BASE}))
def test_each_policy_is_needed(dropped: str) -> None:
    """Without it, something here would not hold."""
    rest = [each for each in BASE if each["metadata"]["name"] != dropped]
    flows = {
        "truekeep-operator": not allowed(rest, CLIENT, OPERATOR, 8080),
        "truekeep-server": not allowed(rest, STRANGER, PODS["server"], 8080),
        "truekeep-jobs": not allowed(rest, PODS["trainer"], API_SERVER, 6443),
        "truekeep-rehearsal": allowed(rest, PODS["rehearsal"], PODS["server"], 8080),
        "truekeep-notice": allowed(rest, PODS["notice"], RECEIVER, 8080),
    }
    assert [name for name, holds in flows.items() if not holds] == [dropped]
