"""What a user applies to install the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import ClusterError
from tests.cluster.install import images, overlay
from truekeep.cluster.kinds import ALL, EVENT, LEASE, OWN, TRAINING_RUN
from truekeep.operator_main import LEASE as LEASE_NAME
from truekeep.operator_main import configuration

MANIFESTS = Path(__file__).resolve().parents[3] / "manifests" / "operator"
Json = dict[str, Any]


def documents() -> list[Json]:
    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    return [document for name in listed for document in yaml.safe_load_all((MANIFESTS / name).read_text())]


def of_kind(kind: str, name: str | None = None) -> Json:
    found = [each for each in documents() if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name}: there are {len(found)}"
    return found[0]


RULES = [*of_kind("ClusterRole", "truekeep-operator")["rules"], *of_kind("Role")["rules"]]


ROLES = [each for each in documents() if each["kind"] == "ClusterRole"]


def test_no_right_is_a_wildcard() -> None:
    for rule in [*RULES, *(rule for role in ROLES for rule in role.get("rules", ()))]:
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], rule


def test_the_operator_reads_no_secret_and_gives_no_right() -> None:
    resources = {resource for rule in RULES for resource in rule["resources"]}
    assert not resources & {"secrets", "configmaps", "serviceaccounts", "roles", "clusterroles", "rolebindings"}
    assert not {"escalate", "bind", "impersonate"} & {verb for rule in RULES for verb in rule["verbs"]}


def test_of_our_own_kinds_it_changes_only_the_status() -> None:
    for rule in RULES:
        for kind in OWN:
            if kind.plural in rule["resources"] and kind.group in rule["apiGroups"]:
                # Runs that it made itself go with time (spec.retraining.keepRuns); nobody can change a run at all.
                forbidden = {"update", "patch"} if kind == TRAINING_RUN else {"update", "patch", "delete"}
                assert not set(rule["verbs"]) & forbidden, rule


def test_it_may_do_something_with_every_kind_that_it_knows() -> None:
    for kind in ALL:
        assert any(kind.group in rule["apiGroups"] and kind.plural in rule["resources"] for rule in RULES), kind


def test_the_lease_is_its_own_and_no_other() -> None:
    (named,) = (rule for rule in RULES if rule["resources"] == [LEASE.plural] and "resourceNames" in rule)
    assert named["resourceNames"] == [LEASE_NAME]
    assert EVENT.group == "events.k8s.io"


def test_the_operators_pod_passes_pod_security_restricted() -> None:
    namespace = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_the_images_of_its_pods_are_told_by_variables_that_it_reads() -> None:
    lines = (MANIFESTS / "images.env").read_text().split()
    config = configuration(dict(line.split("=", 1) for line in lines))
    assert config == configuration({}) or config.settings == configuration({}).settings
    assert {line.split("=")[0] for line in lines} == {
        "TRUEKEEP_TRAINER_IMAGE",
        "TRUEKEEP_SERVER_IMAGE",
        "TRUEKEEP_MONITOR_IMAGE",
    }


def test_an_overlay_differs_in_the_images_alone() -> None:
    names = {
        "TRUEKEEP_OPERATOR_IMAGE": "localhost:5000/truekeep/operator:dev-1",
        "TRUEKEEP_TRAINER_IMAGE": "truekeep/trainer:dev-2",
        "TRUEKEEP_SERVER_IMAGE": "truekeep/server:dev-3",
        "TRUEKEEP_MONITOR_IMAGE": "truekeep/monitor:dev-4",
    }
    made = yaml.safe_load(overlay(names))
    assert made["images"] == [
        {"name": "truekeep/operator", "newName": "localhost:5000/truekeep/operator", "newTag": "dev-1"}
    ]
    (generator,) = made["configMapGenerator"]
    assert generator["literals"] == [f"{name}={names[name]}" for name in list(names)[1:]]


def test_images_that_were_not_built_are_named(tmp_path: Path) -> None:
    file = tmp_path / "images.env"
    file.write_text("TRUEKEEP_OPERATOR_IMAGE=a:1\nTRUEKEEP_SERVER_IMAGE=b:1\n")
    with pytest.raises(ClusterError, match="TRUEKEEP_TRAINER_IMAGE, TRUEKEEP_MONITOR_IMAGE; `make images`"):
        images(file)


def rules_of(role: str) -> list[Json]:
    """The rules of a role for people, as the API server puts them together."""
    found = of_kind("ClusterRole", f"truekeep-{role}")
    asked = [each["matchLabels"] for each in found.get("aggregationRule", {}).get("clusterRoleSelectors", ())]
    parts = [each for each in ROLES if any(labels.items() <= each["metadata"]["labels"].items() for labels in asked)]
    assert "rules" in found or parts, f"{role} has no rules and takes none up"
    return [rule for each in [found, *parts] for rule in each.get("rules", ())]


def rights(role: str, resource: str) -> set[str]:
    """Verbs that a role for people has on one of our kinds."""
    rules = rules_of(role)
    return {verb for rule in rules if resource in rule["resources"] for verb in rule["verbs"]}


def test_who_changes_a_model_does_not_approve_it_and_who_approves_does_not_change_it() -> None:
    assert "approve" not in rights("editor", "models")
    assert "create" not in rights("editor", "modelapprovals")
    assert rights("approver", "models") == {"get", "list", "watch", "approve"}
    assert rights("approver", "modelapprovals") == {"get", "list", "watch", "create"}
    assert rights("viewer", "models") == {"get", "list", "watch"}


def test_nobody_but_the_operator_writes_a_status_and_nobody_changes_a_decision() -> None:
    for role in ("viewer", "editor", "approver", "auditor"):
        resources = {name for rule in rules_of(role) for name in rule["resources"]}
        assert not {name for name in resources if name.endswith("/status")}
        assert not {"update", "patch", "delete"} & rights(role, "modelapprovals")
