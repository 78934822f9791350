"""What our manifests let anybody do: no wildcard, no Secret, no token, nothing by which rights are given."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.story.kube import ROOT
from tests.unit.resources.samples import built

Json = dict[str, Any]
MANIFESTS = ROOT / "manifests"
GIVES_RIGHTS = {"escalate", "bind", "impersonate", "*"}
CARRIES_RIGHTS = {"serviceaccounts/token", "pods/exec", "pods/attach", "pods/portforward", "pods/ephemeralcontainers",
                  "nodes/proxy", "services/proxy", "pods/proxy", "certificatesigningrequests"}  # fmt: skip
READS = {"get", "list", "watch"}
POD_KINDS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"}


def documents() -> list[tuple[str, Json]]:
    """Every object that we ship, with the file that it is in."""
    found = []
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if "helm" in path.parts:
            continue
        objects = [each for each in yaml.safe_load_all(path.read_text()) if isinstance(each, dict) and "kind" in each]
        found += [(str(path.relative_to(ROOT)), each) for each in objects if each["kind"] != "Kustomization"]
    return found


def rules() -> list[tuple[str, Json]]:
    return [
        (f"{file}: {each['kind']} {each['metadata']['name']}", rule)
        for file, each in documents()
        if each["kind"] in ("Role", "ClusterRole")
        for rule in each.get("rules", [])
    ]


def wrong(rule: Json, of_people: bool) -> list[str]:
    """What a rule should not allow."""
    found = []
    verbs, resources, groups = set(rule["verbs"]), set(rule.get("resources", [])), set(rule.get("apiGroups", []))
    if "*" in verbs | resources | groups:
        found.append("a wildcard")
    if any("*" in each for each in resources):
        found.append("a wildcard of subresources")
    if any(each.partition("/")[0] == "secrets" for each in resources):
        found.append("Secrets")
    if verbs & GIVES_RIGHTS:
        found.append("a verb that gives rights")
    if resources & CARRIES_RIGHTS:
        found.append("a resource by which a pod's or another's rights are taken on")
    if groups & {"rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"} and verbs - READS:
        found.append("a change of roles, admission or kinds")
    if rule.get("nonResourceURLs"):
        found.append("URLs")
    if not of_people and "configmaps" in resources:
        found.append("ConfigMaps")
    return found


def test_there_are_rules_to_look_at() -> None:
    assert len(rules()) > 20


@pytest.mark.parametrize(("where", "rule"), rules(), ids=lambda value: value if isinstance(value, str) else "")
def test_no_rule_allows_more_than_it_must(where: str, rule: Json) -> None:
    assert not wrong(rule, of_people="roles.yaml" in where), f"{where}: {rule}"


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["*"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]},
        {"apiGroups": ["truekeep.dev"], "resources": ["*/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
        {"nonResourceURLs": ["/debug/*"], "verbs": ["get"]},
    ],
)
def test_a_rule_that_allows_more_is_found(rule: Json) -> None:
    assert wrong(rule, of_people=True)


def test_the_operator_changes_no_object_that_git_may_own() -> None:
    for where, rule in rules():
        if "rbac.yaml" in where and "truekeep.dev" in rule["apiGroups"]:
            writes = set(rule["verbs"]) - READS
            # It deletes runs that it made itself and that are old (domain/pruning.py); a run can't be changed at all.
            own = writes <= {"create", "delete"} and rule["resources"] == ["trainingruns"]
            assert not writes or own or all(each.endswith("/status") for each in rule["resources"]), (where, rule)
            assert not writes or rule["resources"] == ["trainingruns"] or writes == {"patch"}, (where, rule)


def pod_specs() -> list[tuple[str, Json]]:
    """Every pod that we ship or build."""
    everything = [*documents(), *((f"builders: {name}", each) for name, each in built().items())]
    found = []
    for file, each in everything:
        if each.get("kind") not in POD_KINDS:
            continue
        spec = each["spec"]
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        pod = spec.get("template", {"spec": spec}).get("spec")
        if pod is None or not all("image" in container for container in pod.get("containers", [])):
            continue  # a patch of a Deployment that is looked at itself
        found.append((f"{file}: {each['kind']} {each['metadata']['name']}", pod))
    return found


@pytest.mark.parametrize(("where", "spec"), pod_specs(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_pod_is_restricted_and_only_the_operators_has_a_token(where: str, spec: Json) -> None:
    if "Deployment truekeep-operator" not in where:
        assert spec.get("automountServiceAccountToken") is False, where
        assert not any("projected" in each for each in spec.get("volumes", [])), "a token could be projected"
    assert not unrestricted(spec), where


def unrestricted(spec: Json) -> list[str]:
    """What Pod Security's level `restricted` refuses (v1.34)."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {each['name']}" for each in spec.get("volumes", []) if not (set(each) - {"name"}) <= allowed]
    pod = spec.get("securityContext", {})
    for each in [*spec.get("initContainers", []), *spec["containers"]]:
        own = each.get("securityContext", {})
        both = {**pod, **own}
        checks = {
            "privilege escalation": own.get("allowPrivilegeEscalation") is not False,
            "privileged": own.get("privileged", False),
            "capabilities": own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"),
            "root": not both.get("runAsNonRoot") or both.get("runAsUser", 1) == 0,
            "seccomp": both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "a port of the host": any("hostPort" in port for port in each.get("ports", [])),
            "procMount": own.get("procMount", "Default") != "Default",
        }
        found += [f"{each['name']}: {what}" for what, bad in checks.items() if bad]
    return found


def test_every_namespace_that_we_ship_enforces_the_strictest_level() -> None:
    namespaces = [(file, each) for file, each in documents() if each["kind"] == "Namespace"]
    assert {each["metadata"]["name"] for _, each in namespaces} >= {"truekeep-system", "truekeep-demo"}
    for file, each in namespaces:
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", file
