"""What is looked at, each as a function of the cluster: what is needed, what only some features need, what is odd."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from truekeep.api.crd import render
from truekeep.cli.preflight.cluster import Cluster, Json, NotAllowedError, Right

OLDEST = (1, 30)
SYSTEM = "truekeep-system"
GIBIBYTE = 2**30
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "": 1}
Outcome = Literal["Ok", "Missing", "Warning", "Optional", "Unknown"]
# What installing writes. The operator's own rights can only be given by who has them, or may escalate.
OF_CLUSTER = (
    Right("create", "apiextensions.k8s.io", "customresourcedefinitions"),
    Right("create", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
    Right("create", "admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    Right("create", "rbac.authorization.k8s.io", "clusterroles"),
    Right("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    Right("create", "", "namespaces"),
)
OF_NAMESPACE = (("apps", "deployments"), ("", "serviceaccounts"), ("", "configmaps"), ("", "services"))
OF_WATCHED = (("rbac.authorization.k8s.io", "roles"), ("rbac.authorization.k8s.io", "rolebindings"))


@dataclass(frozen=True)
class Finding:
    """What one look found. Missing: nothing works without it; Optional: a feature needs it; Unknown: not readable."""

    check: str
    outcome: Outcome
    message: str
    remedy: str = ""

    def dump(self) -> dict[str, str]:
        """For programs."""
        found = {"check": self.check, "outcome": self.outcome, "message": self.message, "remedy": self.remedy}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Plan:
    """What is to be installed, and where: for the whole cluster, or for some namespaces alone."""

    system: str = SYSTEM
    namespaces: tuple[str, ...] = ()


def findings(cluster: Cluster, plan: Plan) -> list[Finding]:
    """Everything, what is needed first."""
    return [finding for name, check in CHECKS.items() for finding in _careful(name, check, cluster, plan)]


def fit(found: Sequence[Finding]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(finding.outcome != "Missing" for finding in found)


Check = Callable[[Cluster, Plan], Iterator[Finding]]


def _careful(name: str, check: Check, cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    try:
        yield from check(cluster, plan)
    except NotAllowedError:
        yield Finding(name, "Unknown", "you may not read this", "ask who administers the cluster to run this")


def kubernetes(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """The API server's age."""
    found = cluster.version()
    said = f"Kubernetes {found[0]}.{found[1]}"
    if found < OLDEST:
        needed = f"{OLDEST[0]}.{OLDEST[1]}"
        yield Finding(
            "kubernetes", "Missing", f"{said}, at least {needed} is needed", f"upgrade the cluster to {needed}"
        )
    else:
        yield Finding("kubernetes", "Ok", said)


def admission(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Policies that ask who approves, who changes, and whose identity a pod takes."""
    if cluster.serves_policies():
        yield Finding("admission", "Ok", "ValidatingAdmissionPolicy is served")
    else:
        remedy = "let the API server serve admissionregistration.k8s.io/v1 (no --runtime-config turns it off)"
        yield Finding("admission", "Missing", "ValidatingAdmissionPolicy is not served", remedy)


def rights(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Whether this person may install."""
    wanted = [Right("create", group, resource, plan.system) for group, resource in OF_NAMESPACE]
    wanted += [Right("create", *each, namespace) for namespace in plan.namespaces for each in OF_WATCHED]
    missing = [right for right in wanted if not cluster.may(right)]
    of_cluster = [right for right in OF_CLUSTER if not cluster.may(right)]
    if plan.namespaces:
        if of_cluster:
            remedy = (
                "have a cluster admin apply manifests/crds and the admission policies once, then install with "
                "clusterObjects=false and crds.install=false (docs/install.md)"
            )
            yield Finding("rights", "Warning", f"you may not {_listed(of_cluster)}", remedy)
    else:
        missing = [*of_cluster, *missing]
    if missing:
        remedy = "have a cluster admin install, or install for some namespaces alone: --watch NAMESPACE"
        yield Finding("rights", "Missing", f"you may not {_listed(missing)}", remedy)
    else:
        yield Finding("rights", "Ok", "you may install")


def _listed(missing: Sequence[Right]) -> str:
    return ", ".join(map(str, missing))


def kinds(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Our CustomResourceDefinitions, and whether they are those of this version."""
    apply = "kubectl apply --server-side -k manifests/crds"
    absent, odd = [], []
    for text in render().values():
        ours = json.loads(text)
        name = ours["metadata"]["name"]
        live = cluster.kind(name)
        if live is None:
            absent.append(name)
        elif live["metadata"].get("deletionTimestamp"):
            yield Finding("kinds", "Missing", f"{name} is being deleted", f"wait for it, then {apply}")
        elif not _established(live):
            yield Finding(
                "kinds", "Missing", f"{name} is not served: {_why(live)}", f"{apply}, and read its conditions"
            )
        elif _schema(live) != _schema(ours):
            odd.append(name)
    if absent:
        told = "none of our kinds is there yet" if len(absent) == len(render()) else f"{', '.join(absent)} is not there"
        yield Finding("kinds", "Warning", told, f"{apply}, or install all of manifests/default")
    if odd:
        message = f"{', '.join(odd)} is of another version than this command"
        yield Finding("kinds", "Warning", message, f"{apply}, of the version that the operator has")
    if not absent and not odd:
        yield Finding("kinds", "Ok", "the kinds are those of this version")


def _established(crd: Json) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _why(crd: Json) -> str:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return "; ".join(str(each.get("message", each["type"])) for each in conditions if each["status"] == "False") or "?"


def _schema(crd: Json) -> Any:
    (version,) = (each for each in crd["spec"]["versions"] if each.get("storage"))
    return _pruned(version["schema"])


def _pruned(node: Any) -> Any:
    """Without what a server leaves out or adds: null, and numbers as it writes them."""
    if isinstance(node, dict):
        return {name: _pruned(each) for name, each in node.items() if each is not None and name != "description"}
    if isinstance(node, list):
        return [_pruned(each) for each in node]
    return float(node) if isinstance(node, int | float) and not isinstance(node, bool) else node


def operator(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """The operators that are there, and whether they are ready."""
    there = cluster.operators()
    if not there:
        yield Finding("operator", "Warning", "no operator is installed yet", "docs/install.md")
    for each in there:
        namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
        ready = (each.get("status") or {}).get("readyReplicas") or 0
        image = each["spec"]["template"]["spec"]["containers"][0]["image"]
        if ready:
            yield Finding("operator", "Ok", f"{namespace}/{name} is ready: {image}")
        else:
            remedy = f"kubectl describe pods -n {namespace}; kubectl logs -n {namespace} deployment/{name}"
            yield Finding("operator", "Missing", f"{namespace}/{name} is not ready: {image}", remedy)
    if len(there) > 1:
        names = ", ".join(each["metadata"]["namespace"] for each in there)
        remedy = "give each namespaces of its own (docs/install.md), or remove all but one"
        yield Finding("operator", "Warning", f"there are operators in {names}", remedy)


def pod_security(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Our pods pass `restricted`; a namespace that asks for it keeps everything else in it to that."""
    label = "pod-security.kubernetes.io/enforce"
    for name in (plan.system, *plan.namespaces):
        found = cluster.namespace(name)
        if found is None:
            if name != plan.system:
                yield Finding(
                    "namespaces", "Missing", f"namespace {name} is not there", f"kubectl create namespace {name}"
                )
            continue
        level = (found["metadata"].get("labels") or {}).get(label)
        if found["metadata"].get("deletionTimestamp"):
            yield Finding("namespaces", "Missing", f"namespace {name} is being deleted", "wait until it is gone")
        elif level != "restricted":
            remedy = f"kubectl label namespace {name} {label}=restricted"
            yield Finding("namespaces", "Warning", f"{name} enforces {level or 'no Pod Security'}", remedy)
        else:
            yield Finding("namespaces", "Ok", f"{name} enforces Pod Security restricted")


def nodes(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """A node that takes pods, with room for a training of the default size."""
    ready = [node for node in cluster.items("nodes") if _takes_pods(node)]
    if not ready:
        yield Finding("nodes", "Missing", "no node takes pods", "kubectl get nodes; add one, or uncordon one")
        return
    most = max(_bytes(node["status"]["allocatable"]["memory"]) for node in ready)
    said = f"{len(ready)} take pods, the largest has {most / GIBIBYTE:.1f} GiB"
    if most < 2 * GIBIBYTE:
        remedy = "add a larger node, or set spec.training.resources smaller in each Model"
        yield Finding("nodes", "Warning", f"{said}; a training asks for 1 GiB by default", remedy)
    else:
        yield Finding("nodes", "Ok", said)


def _takes_pods(node: Json) -> bool:
    conditions = node["status"].get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    taints = node["spec"].get("taints") or []
    closed = any(each["effect"] in {"NoSchedule", "NoExecute"} for each in taints)
    return ready and not closed and not node["spec"].get("unschedulable")


def _bytes(amount: str) -> float:
    number = amount.rstrip("".join(set("".join(UNITS))))
    return float(number) * UNITS[amount[len(number) :]]


def dns(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Names of Services: pods find the store by one, and clients find models."""
    if cluster.items("dns"):
        yield Finding("dns", "Ok", "the cluster has a DNS Service")
    else:
        remedy = "install CoreDNS; one without the label k8s-app=kube-dns is not seen here, and works as well"
        yield Finding("dns", "Warning", "no Service with the label k8s-app=kube-dns", remedy)


def storage(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """Only data on PersistentVolumeClaims needs it: stores are S3."""
    annotation = "storageclass.kubernetes.io/is-default-class"
    classes = cluster.items("storageclasses")
    default = [each for each in classes if (each["metadata"].get("annotations") or {}).get(annotation) == "true"]
    if default:
        yield Finding("storage", "Ok", f"default StorageClass {default[0]['metadata']['name']}")
    else:
        remedy = (
            "only sources on a PersistentVolumeClaim need one: mark a StorageClass as default, or name it in the claim"
        )
        yield Finding("storage", "Optional", "no default StorageClass", remedy)


def features(cluster: Cluster, plan: Plan) -> Iterator[Finding]:
    """What some fields of a Model need of others."""
    served = cluster.groups()
    for group, name, what, remedy in (
        ("gateway.networking.k8s.io/v1", "gateway", "the Gateway API", "serving.gateway and strategy Shadow need it"),
        ("metrics.k8s.io/v1beta1", "metrics", "metrics-server", "serving.autoscaling needs it"),
        ("monitoring.coreos.com/v1", "prometheus", "the Prometheus Operator", "manifests/monitoring needs it"),
    ):
        if group in served:
            yield Finding(name, "Ok", f"{what} is there")
        else:
            yield Finding(name, "Optional", f"{what} is not there", f"{remedy}: install it, or do without")


CHECKS: dict[str, Check] = {
    "kubernetes": kubernetes,
    "admission": admission,
    "rights": rights,
    "kinds": kinds,
    "operator": operator,
    "namespaces": pod_security,
    "nodes": nodes,
    "dns": dns,
    "storage": storage,
    "features": features,
}
