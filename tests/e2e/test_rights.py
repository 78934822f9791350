"""What our roles allow, asked of the API server; and who may name a Secret, tried with and without the right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.e2e.shop import merged
from tests.story.kube import ROOT, Json, Kube, KubectlError, load
from tests.story.stage import EXAMPLES

NAMESPACE = "truekeep-e2e-rights"
ROLES = ("viewer", "editor", "approver", "auditor", "restorer")
KINDS = ("models", "trainingruns", "driftpolicies", "modelapprovals")
OPERATOR = "system:serviceaccount:truekeep-system:truekeep-operator"
STORE = {"uri": "s3://models/", "endpoint": "http://s3:7070", "credentialsSecretRef": {"name": "lake"}}


@pytest.fixture(scope="module")
def people(kube: Kube) -> Iterator[Kube]:
    """A namespace in which each role is held by a user of its name, and carla edits and may read Secret lake."""
    document = load(EXAMPLES / "namespace.yaml")[0]
    document["metadata"]["name"] = NAMESPACE
    kube.fresh_namespace(document)
    for role in ROLES:
        bind(kube, role, f"--clusterrole=truekeep-{role}", f"--user={role}")
    bind(kube, "carla", "--clusterrole=truekeep-editor", "--user=carla")
    kube.kubectl("create", "role", "lake", "--verb=get", "--resource=secrets", "--resource-name=lake", "-n", NAMESPACE)
    bind(kube, "carla-lake", "--role=lake", "--user=carla")
    yield kube
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def bind(kube: Kube, name: str, *options: str) -> None:
    kube.kubectl("create", "rolebinding", name, "-n", NAMESPACE, *options)


def may(
    kube: Kube, user: str, verb: str, resource: str, group: str = "", namespace: str = NAMESPACE, **more: str
) -> bool:
    """What the API server's own authorizer says (a SubjectAccessReview)."""
    resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace, **more}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:authenticated", *(["system:serviceaccounts"] if ":" in user else [])],
            "resourceAttributes": attributes | ({"subresource": subresource} if subresource else {}),
        },
    }
    reviews = client.AuthorizationV1Api(kube._client)  # no process for each of some hundred questions
    return bool(reviews.create_subject_access_review(review).status.allowed)


def ours(kube: Kube, user: str, verb: str, resource: str) -> bool:
    return may(kube, user, verb, resource, "truekeep.dev")


def test_each_role_may_do_its_work_and_nothing_else(people: Kube) -> None:
    verbs = ("get", "create", "update", "delete", "approve", "attest", "restore")
    allowed = {
        role: {f"{verb} {kind}" for kind in KINDS for verb in verbs if ours(people, role, verb, kind)} for role in ROLES
    }
    reads = {f"get {kind}" for kind in KINDS}
    writes = {f"{verb} {kind}" for kind in ("models", "driftpolicies") for verb in ("create", "update", "delete")}
    assert allowed["viewer"] == reads
    assert allowed["editor"] == reads | writes | {"create trainingruns", "delete trainingruns"}
    assert allowed["approver"] == reads | {"approve models", "create modelapprovals"}
    assert allowed["auditor"] == reads
    mine = {"get models", "restore models", "get trainingruns", "create trainingruns", "delete trainingruns"}
    assert allowed["restorer"] == mine
    assert ours(people, "editor", "update", "models/scale")
    assert may(people, "auditor", "list", "rolebindings", "rbac.authorization.k8s.io")
    assert may(people, "auditor", "list", "jobs", "batch")
    for role in ROLES:
        assert not ours(people, role, "patch", "models/status"), role
        assert not may(people, role, "get", "secrets"), role
        assert not may(people, role, "get", "models", "truekeep.dev", namespace="default"), role
        assert not may(people, role, "create", "rolebindings", "rbac.authorization.k8s.io"), role
        assert not may(people, role, "create", "pods"), role
        assert not may(people, role, "create", "pods/exec"), role


def test_the_clusters_own_roles_take_up_viewer_and_editor_and_not_the_decisions(people: Kube) -> None:
    for role, changes in (("view", False), ("edit", True), ("admin", True)):
        bind(people, f"cluster-{role}", f"--clusterrole={role}", f"--user=cluster-{role}")
        assert ours(people, f"cluster-{role}", "get", "models"), role
        assert ours(people, f"cluster-{role}", "update", "models") is changes, role
        assert not ours(people, f"cluster-{role}", "approve", "models"), role
        assert not ours(people, f"cluster-{role}", "restore", "models"), role
        assert not ours(people, f"cluster-{role}", "create", "modelapprovals"), role


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [
        ("get", "secrets", ""),
        ("list", "secrets", ""),
        ("get", "configmaps", ""),
        ("create", "serviceaccounts/token", ""),
        ("create", "pods", ""),
        ("create", "pods/exec", ""),
        ("get", "pods/log", ""),
        ("patch", "nodes", ""),
        ("create", "roles", "rbac.authorization.k8s.io"),
        ("bind", "clusterroles", "rbac.authorization.k8s.io"),
        ("escalate", "clusterroles", "rbac.authorization.k8s.io"),
        ("impersonate", "users", ""),
        ("patch", "models", "truekeep.dev"),
        ("update", "models", "truekeep.dev"),
        ("delete", "models", "truekeep.dev"),
        ("patch", "driftpolicies", "truekeep.dev"),
        ("create", "modelapprovals", "truekeep.dev"),
        ("approve", "models", "truekeep.dev"),
        ("restore", "models", "truekeep.dev"),
        ("patch", "validatingadmissionpolicies", "admissionregistration.k8s.io"),
        ("patch", "customresourcedefinitions", "apiextensions.k8s.io"),
    ],
)
def test_the_operator_itself_may_not(people: Kube, verb: str, resource: str, group: str) -> None:
    assert not may(people, OPERATOR, verb, resource, group)


def test_the_operator_may_do_its_work(people: Kube) -> None:
    assert may(people, OPERATOR, "create", "jobs", "batch")
    assert ours(people, OPERATOR, "patch", "models/status")


def model(**spec: Any) -> Json:
    document = load(EXAMPLES / "flight-delay" / "model.yaml")[0]
    document["metadata"] = {"name": "guarded"}
    return {**document, "spec": merged(document["spec"], {"store": {"s3": STORE}, "serving": {"replicas": 0}, **spec})}


def applies(kube: Kube, user: str, document: Json, *options: str) -> str:
    """Server-side apply in somebody's name. KubectlError where it is refused."""
    arguments = ("apply", "--server-side", "--force-conflicts", "-n", NAMESPACE, f"--as={user}", "-f", "-", *options)
    return kube.kubectl(*arguments, stdin=yaml.safe_dump(document))


def refused(kube: Kube, user: str, document: Json, secret: str) -> None:
    with pytest.raises(KubectlError) as caught:
        applies(kube, user, document)
    words = str(caught.value)
    assert f"'{user}' may not read Secret {secret}, which this {document['kind']} names" in words, words


def test_who_names_a_secret_must_be_allowed_to_read_it(people: Kube) -> None:
    paused = {"annotations": {"truekeep.dev/paused": "true"}}  # nothing needs to be trained here
    document = merged(model(), {"metadata": paused})
    refused(people, "editor", document, "lake")
    with pytest.raises(KubectlError, match="may not read Secret lake"):
        applies(people, "editor", document, "--dry-run=server")  # as `truekeep diff` and Argo CD ask
    applies(people, "carla", document)

    # What does not touch a Secret is for every editor: settings, annotations, scale.
    applies(people, "editor", merged(document, {"spec": {"training": {"timeoutSeconds": 1700}}}))
    annotate = ("annotate", "tkm", "guarded", "-n", NAMESPACE, "--as=editor", "truekeep.dev/retrain=1")
    people.kubectl(*annotate)
    people.kubectl("scale", "tkm", "guarded", "-n", NAMESPACE, "--as=editor", "--replicas=1")

    # Another Secret, or the same at another address, is not.
    other = {"store": {"s3": {**STORE, "credentialsSecretRef": {"name": "payroll"}}}}
    refused(people, "editor", merged(document, {"spec": other}), "payroll")
    refused(people, "carla", merged(document, {"spec": other}), "payroll")
    elsewhere = {"data": {"source": {"s3": {"uri": "s3://lake/flights/", "endpoint": "http://elsewhere:9000"}}}}
    refused(people, "editor", merged(document, {"spec": elsewhere}), "lake")
    applies(people, "carla", merged(document, {"spec": elsewhere}))


def test_a_policys_token_is_guarded_in_the_same_way(people: Kube) -> None:
    spec = {
        "modelRef": {"name": "guarded"}, "schedule": "0 0 1 1 *", "window": {"hours": 24},
        "webhook": {"url": "http://receiver/", "tokenSecretRef": {"name": "lake"}},
    }  # fmt: skip
    policy = {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "DriftPolicy",
        "metadata": {"name": "guarded"},
        "spec": spec,
    }
    refused(people, "editor", policy, "lake")
    applies(people, "carla", policy)
    applies(people, "editor", merged(policy, {"spec": {"schedule": "0 0 2 1 *"}}))
    refused(people, "editor", merged(policy, {"spec": {"webhook": {"url": "http://mine/"}}}), "lake")


def test_who_brings_an_old_run_back_to_serve_needs_the_verb_for_it(people: Kube) -> None:
    run = {
        "apiVersion": "truekeep.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "nobodys-0123456789"},
        "spec": {
            "modelRef": {"name": "nobodys"},  # there is no such Model: nothing begins
            "restore": {"runUid": "u", "modelUid": "m", "latestRevision": 3, "revision": 1},
        },
    }
    create = ("create", "-n", NAMESPACE, "-f", "-")
    for user in ("editor", "approver"):
        if user == "approver":  # who decides and trains, but was not named for this
            bind(people, "approver-edits", "--clusterrole=truekeep-editor", "--user=approver")
        with pytest.raises(KubectlError) as caught:
            people.kubectl(*create, f"--as={user}", stdin=yaml.safe_dump(run))
        words = str(caught.value)
        assert f"'{user}' may not restore runs of Model nobodys" in words, words
        assert f"bind the ClusterRole truekeep-restorer in namespace {NAMESPACE}" in words
    trained = merged(run, {"metadata": {"name": "nobodys-1"}, "spec": {"restore": None}})
    people.kubectl(*create, "--as=editor", stdin=yaml.safe_dump(trained))
    people.kubectl(*create, "--as=restorer", stdin=yaml.safe_dump(run))
    people.kubectl("label", "tkr", "nobodys-0123456789", "-n", NAMESPACE, "team=risk")


def test_the_most_secrets_that_a_model_may_name_are_asked_about_within_the_cost_of_a_policy(people: Kube) -> None:
    joins = [
        {
            "name": f"join-{number}",
            "source": {"s3": {"uri": f"s3://join-{number}/", "credentialsSecretRef": {"name": f"key-{number}"}}},
            "timeColumn": "at",
            "by": ["origin"],
        }
        for number in range(8)
    ]
    pulls = [{"name": f"pull-{number}"} for number in range(3)]
    document = merged(model(), {"spec": {"data": {"joins": joins}, "pods": {"imagePullSecrets": pulls}}})
    named = ["lake", *(f"key-{number}" for number in range(8)), *(f"pull-{number}" for number in range(3))]
    options = [f"--resource-name={name}" for name in named]
    people.kubectl("create", "role", "all", "--verb=get", "--resource=secrets", *options, "-n", NAMESPACE)
    bind(people, "dora", "--clusterrole=truekeep-editor", "--user=dora")
    bind(people, "dora-all", "--role=all", "--user=dora")
    applies(people, "dora", {**document, "metadata": {"name": "many"}}, "--dry-run=server")
    refused(people, "carla", {**document, "metadata": {"name": "many"}}, "key-0")


def test_the_network_policies_are_valid(people: Kube) -> None:
    """Nothing enforces them on this cluster; which flows they allow, tests/unit/manifests/test_network.py judges."""
    for folder in ("network", "network/outside"):
        said = people.kubectl("apply", "--server-side", "-n", NAMESPACE, "-k", str(ROOT / "manifests" / folder))
        assert "serverside-applied" in said


def test_no_pod_that_is_not_restricted_gets_into_the_namespaces_that_we_ship(people: Kube) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "root", "image": "pause", "securityContext": {"privileged": True}}]},
    }
    for namespace in (NAMESPACE, "truekeep-system"):  # the first has the labels of manifests/examples/namespace.yaml
        with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
            people.kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
