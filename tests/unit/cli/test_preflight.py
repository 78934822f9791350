"""What a cluster lacks, of clusters that are made up; a real one is asked in tests/e2e."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from truekeep.api.crd import render
from truekeep.cli.main import app
from truekeep.cli.preflight import command
from truekeep.cli.preflight.checks import SYSTEM, Finding, Plan, findings, fit
from truekeep.cli.preflight.cluster import Json, NotAllowedError, Right

ESTABLISHED = {"conditions": [{"type": "Established", "status": "True"}]}
GROUPS = frozenset({"gateway.networking.k8s.io/v1", "metrics.k8s.io/v1beta1", "monitoring.coreos.com/v1"})
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def crds() -> dict[str, Any]:
    made = [json.loads(text) for text in render().values()]
    return {each["metadata"]["name"]: {**each, "status": ESTABLISHED} for each in made}


def node(memory: str = "16Gi", **spec: Any) -> dict[str, Any]:
    status = {"allocatable": {"memory": memory}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": "n"}, "spec": spec, "status": status}


def deployment(ready: int = 1, namespace: str = SYSTEM) -> dict[str, Any]:
    container = {"name": "operator", "image": "truekeep/operator:0.1.0"}
    return {
        "metadata": {"name": "truekeep-operator", "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"readyReplicas": ready},
    }


def named(name: str, labels: dict[str, str] | None = None, **about: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}, **about}}


@dataclass
class FakeCluster:
    """A cluster that has everything, until a test takes something away."""

    kubernetes: tuple[int, int] = (1, 34)
    served: frozenset[str] = GROUPS
    policies: bool = True
    crds: dict[str, Any] = field(default_factory=crds)
    namespaces: dict[str, Any] = field(default_factory=lambda: {SYSTEM: named(SYSTEM, RESTRICTED)})
    deployments: list[Any] = field(default_factory=lambda: [deployment()])
    things: dict[str, list[Any]] = field(
        default_factory=lambda: {
            "nodes": [node()],
            "dns": [named("kube-dns")],
            "storageclasses": [
                named("standard", annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
            ],
        }
    )
    denied: set[str] = field(default_factory=set)  # `verb resource`, with ` in namespace` for one alone
    hidden: set[str] = field(default_factory=set)  # what may not be read

    def version(self) -> tuple[int, int]:
        return self.kubernetes

    def groups(self) -> frozenset[str]:
        return self.served

    def serves_policies(self) -> bool:
        return self.policies

    def kind(self, name: str) -> Json | None:
        return self.crds.get(name)

    def namespace(self, name: str) -> Json | None:
        return self.namespaces.get(name)

    def operators(self) -> list[Json]:
        return self.deployments

    def items(self, what: str) -> list[Json]:
        if what in self.hidden:
            raise NotAllowedError
        return self.things[what]

    def may(self, right: Right) -> bool:
        plain = f"{right.verb} {right.resource}"
        return not {plain, f"{plain} in {right.namespace}"} & self.denied


def found(cluster: FakeCluster, plan: Plan | None = None) -> dict[tuple[str, str], Finding]:
    """What is not well, by check and outcome."""
    return {(each.check, each.outcome): each for each in findings(cluster, plan or Plan()) if each.outcome != "Ok"}


def one(cluster: FakeCluster, check: str, outcome: str, plan: Plan | None = None) -> Finding:
    """The only thing that is not well. It says what to do."""
    not_well = found(cluster, plan)
    assert set(not_well) == {(check, outcome)}
    (finding,) = not_well.values()
    assert finding.remedy
    assert fit(findings(cluster, plan or Plan())) == (outcome != "Missing")
    return finding


def test_a_cluster_that_has_everything_lacks_nothing() -> None:
    assert found(FakeCluster()) == {}
    assert {each.check for each in findings(FakeCluster(), Plan())} >= {"kubernetes", "rights", "kinds", "operator"}


def test_an_old_one() -> None:
    finding = one(FakeCluster(kubernetes=(1, 29)), "kubernetes", "Missing")
    assert "1.29" in finding.message
    assert "1.30" in finding.remedy


def test_one_without_admission_policies() -> None:
    one(FakeCluster(policies=False), "admission", "Missing")


@pytest.mark.parametrize(
    "resource", ["customresourcedefinitions", "clusterroles", "validatingadmissionpolicies", "deployments"]
)
def test_rights_that_this_person_lacks(resource: str) -> None:
    finding = one(FakeCluster(denied={f"create {resource}"}), "rights", "Missing")
    assert f"create {resource}" in finding.message
    assert "--watch" in finding.remedy


def test_some_namespaces_need_no_right_in_the_cluster() -> None:
    cluster = FakeCluster(denied={"create clusterroles", "create customresourcedefinitions"})
    cluster.namespaces["team-a"] = named("team-a", RESTRICTED)
    plan = Plan(SYSTEM, ("team-a",))
    assert "clusterObjects=false" in one(cluster, "rights", "Warning", plan).remedy
    cluster.denied = {"create rolebindings in team-a"}
    finding = one(cluster, "rights", "Missing", plan)
    assert "create rolebindings.rbac.authorization.k8s.io in team-a" in finding.message


def test_kinds_that_are_not_there() -> None:
    assert "none of our kinds" in one(FakeCluster(crds={}), "kinds", "Warning").message
    some = crds()
    del some["driftpolicies.truekeep.dev"]
    assert "driftpolicies.truekeep.dev is not there" in one(FakeCluster(crds=some), "kinds", "Warning").message


def test_kinds_of_another_version() -> None:
    other = copy.deepcopy(crds())
    schema = other["models.truekeep.dev"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["serving"]
    assert "models.truekeep.dev is of another version" in one(FakeCluster(crds=other), "kinds", "Warning").message


def test_kinds_that_are_not_served() -> None:
    taken = crds()
    refused = {"type": "NamesAccepted", "status": "False", "message": '"models" is already in use'}
    taken["models.truekeep.dev"]["status"] = {"conditions": [refused]}
    taken["trainingruns.truekeep.dev"]["metadata"] = {
        **taken["trainingruns.truekeep.dev"]["metadata"],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    told = [each.message for each in findings(FakeCluster(crds=taken), Plan()) if each.outcome == "Missing"]
    assert any("already in use" in each for each in told)
    assert any("trainingruns.truekeep.dev is being deleted" in each for each in told)


def test_an_operator_that_is_not_there_not_ready_or_not_alone() -> None:
    one(FakeCluster(deployments=[]), "operator", "Warning")
    assert "not ready" in one(FakeCluster(deployments=[deployment(0)]), "operator", "Missing").message
    two = FakeCluster(deployments=[deployment(), deployment(namespace="ml")])
    assert "truekeep-system, ml" in one(two, "operator", "Warning").message


def test_namespaces() -> None:
    plan = Plan(SYSTEM, ("team-a",))
    assert "create namespace team-a" in one(FakeCluster(), "namespaces", "Missing", plan).remedy
    cluster = FakeCluster()
    cluster.namespaces["team-a"] = named("team-a")
    assert "enforce=restricted" in one(cluster, "namespaces", "Warning", plan).remedy
    cluster.namespaces = {SYSTEM: named(SYSTEM, RESTRICTED, deletionTimestamp="2026-01-01T00:00:00Z")}
    one(cluster, "namespaces", "Missing")


def test_nodes() -> None:
    taint = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    for nothing in ([], [node(unschedulable=True)], [node(taints=taint)]):
        cluster = FakeCluster()
        cluster.things["nodes"] = nothing
        one(cluster, "nodes", "Missing")
    cluster.things["nodes"] = [node("1500000Ki"), node("512Mi")]
    assert "1.4 GiB" in one(cluster, "nodes", "Warning").message


def test_what_may_not_be_read_is_unknown_and_no_failure() -> None:
    one(FakeCluster(hidden={"nodes"}), "nodes", "Unknown")


def test_what_only_features_need() -> None:
    cluster = FakeCluster(served=frozenset())
    cluster.things["storageclasses"] = [named("slow")]
    cluster.things["dns"] = []
    not_well = found(cluster)
    assert set(not_well) == {
        ("gateway", "Optional"), ("metrics", "Optional"), ("prometheus", "Optional"), ("storage", "Optional"),
        ("dns", "Warning"),
    }  # fmt: skip
    assert all(each.remedy for each in not_well.values())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The command asks this one."""
    cluster = FakeCluster()
    monkeypatch.setattr(command, "Real", lambda: cluster)
    monkeypatch.setattr("kubernetes.config.load_kube_config", lambda: None)
    return cluster


def test_the_command_ends_with_0_or_1_and_says_it_in_80_columns(asked: FakeCluster) -> None:
    done = CliRunner().invoke(app, ["preflight"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "nothing that is needed is missing")
    asked.kubernetes = (1, 25)
    asked.denied = {"create customresourcedefinitions", "create clusterroles"}
    asked.served = frozenset()
    done = CliRunner().invoke(app, ["preflight"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "2 missing")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_command_answers_programs(asked: FakeCluster, form: str, read: Any) -> None:
    asked.policies = False
    done = CliRunner().invoke(app, ["preflight", "-o", form, "--watch", "team-a"])
    answer = read(done.stdout)
    assert (done.exit_code, answer["fit"]) == (1, False)
    missing = [each for each in answer["findings"] if each["outcome"] == "Missing"]
    assert {each["check"] for each in missing} == {"admission", "namespaces"}
    assert all(each["remedy"] for each in missing)


def test_a_cluster_that_does_not_answer_ends_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert CliRunner().invoke(app, ["preflight"]).exit_code == 2
