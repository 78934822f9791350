"""The Helm chart brings what kustomize brings: both are rendered, and their objects compared."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from images import manifests

from tests.cluster import fetch_binary

ROOT = Path(__file__).parents[3]
CHART = ROOT / "manifests" / "helm" / "truekeep"
KUBERNETES = ["--kube-version", "1.34.4"]
SYSTEM = "truekeep-system"
OF_CLUSTER = {"Namespace", "CustomResourceDefinition"}
KEEP = "helm.sh/resource-policy"
Json = dict[str, Any]
Objects = dict[tuple[str, str, str], Json]
needs_helm = pytest.mark.full  # Helm is built first: two minutes, once a machine


def by_name(text: str) -> Objects:
    """The objects of a render. The name of the ConfigMap of images ends with a hash of its content, of Helm's or of
    kustomize's making: here it has none."""
    text = re.sub(r"\btruekeep-images-[0-9a-z]{10}\b", "truekeep-images", text)
    found: Objects = {}
    for document in yaml.safe_load_all(text):
        if document is not None:
            about = document["metadata"]
            key = (document["kind"], about.get("namespace", ""), about["name"])
            assert key not in found, key
            found[key] = document
    return found


def helm(*arguments: str, namespace: str = SYSTEM) -> subprocess.CompletedProcess[str]:
    given = ["--namespace", namespace, *KUBERNETES, *arguments]
    command = [fetch_binary("helm"), "template", "truekeep", CHART, *given]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def chart(*arguments: str, namespace: str = SYSTEM) -> Objects:
    done = helm(*arguments, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def kustomized(folder: str) -> Objects:
    return by_name(manifests.rendered(ROOT / "manifests" / folder))


def operator(objects: Objects, namespace: str = SYSTEM) -> Json:
    found: Json = objects["Deployment", namespace, "truekeep-operator"]["spec"]["template"]["spec"]
    return found


def environment(objects: Objects, namespace: str = SYSTEM) -> dict[str, str]:
    """What the operator is told by values: of its ConfigMap and of its container."""
    images: dict[str, str] = dict(objects["ConfigMap", namespace, "truekeep-images"]["data"])
    return images | {
        e["name"]: e["value"] for e in operator(objects, namespace)["containers"][0]["env"] if "value" in e
    }


def test_what_is_derived_is_current() -> None:
    file = ROOT / "manifests/namespaced/watched/role.yaml"
    assert file.read_text() == manifests.watched_role(ROOT), "run `make manifests`"


def test_a_rendered_file_has_a_namespace_where_there_is_one() -> None:
    for kind, namespace, name in kustomized("default"):
        of_cluster = kind.startswith(("Cluster", "ValidatingAdmission")) or kind in OF_CLUSTER
        assert bool(namespace) != of_cluster, (kind, namespace, name)


@needs_helm
def test_the_chart_is_the_kustomization() -> None:
    wanted = kustomized("default")
    del wanted["Namespace", "", SYSTEM]  # Helm's release needs its namespace before any object of it
    found = chart()
    for (kind, _, _), each in found.items():
        if kind == "CustomResourceDefinition":
            assert each["metadata"].get("annotations", {}).pop(KEEP) == "keep"
            if not each["metadata"]["annotations"]:
                del each["metadata"]["annotations"]
    assert set(found) == set(wanted)
    for key, each in wanted.items():
        assert found[key] == each, key


@needs_helm
def test_without_the_kinds_and_with_nothing_kept() -> None:
    kinds = {key for key in kustomized("default") if key[0] == "CustomResourceDefinition"}
    assert len(kinds) == 4
    assert set(chart()) - set(chart("--set", "crds.install=false")) == kinds
    assert kinds == set(kustomized("crds"))
    freed = chart("--set", "crds.keep=false")
    assert all(KEEP not in freed[key]["metadata"].get("annotations", {}) for key in kinds)


@needs_helm
def test_the_namespaced_chart_is_the_namespaced_kustomization() -> None:
    wanted = kustomized("namespaced/example")
    del wanted["Namespace", "", SYSTEM]
    found = chart("--set", "watchNamespaces={team-a,team-b}", "--set", "crds.install=false")
    assert set(found) == set(wanted)
    assert not [key for key in found if key[0].startswith("Cluster") and key[2] == "truekeep-operator"]
    assert environment(found) == environment(wanted)
    assert environment(found)["TRUEKEEP_WATCH_NAMESPACES"] == "team-a,team-b"
    for key, each in wanted.items():
        if key[0] not in {"ConfigMap", "Deployment"}:  # one says the namespaces in the ConfigMap, one in the Deployment
            assert found[key] == each, key


@needs_helm
def test_an_installation_that_is_not_the_only_one_has_nothing_of_the_whole_cluster() -> None:
    arguments = ["--set", "watchNamespaces={team-c}", "--set", "crds.install=false", "--set", "clusterObjects=false"]
    found = chart(*arguments, namespace="ml")
    assert found
    assert all(namespace in {"ml", "team-c"} for _, namespace, _ in found), found.keys()
    assert SYSTEM not in json.dumps(list(found.values()))
    subjects = found["RoleBinding", "team-c", "truekeep-operator-of-ml"]["subjects"]
    assert subjects == [{"kind": "ServiceAccount", "name": "truekeep-operator", "namespace": "ml"}]


@needs_helm
def test_images_of_a_registry_of_ones_own() -> None:
    moved = chart("--set", "images.registry=registry.example.com/ml", "--set", "images.pullSecrets={mirror}")
    assert operator(moved)["containers"][0]["image"] == "registry.example.com/ml/operator:0.1.0"
    assert operator(moved)["imagePullSecrets"] == [{"name": "mirror"}]
    told = environment(moved)
    assert told["TRUEKEEP_IMAGE_PULL_SECRETS"] == "mirror"
    for name in ("TRAINER", "SERVER", "MONITOR"):
        assert told[f"TRUEKEEP_{name}_IMAGE"] == f"registry.example.com/ml/{name.lower()}:0.1.0"
    pinned = f"registry.example.com/ml/server@sha256:{'a' * 64}"
    assert environment(chart("--set", f"images.server={pinned}"))["TRUEKEEP_SERVER_IMAGE"] == pinned


@needs_helm
def test_other_images_are_another_configmap_so_that_the_operator_restarts() -> None:
    names = [
        re.findall(r"truekeep-images-[0-9a-f]{10}", helm(*arguments).stdout)
        for arguments in ([], ["--set", "images.registry=registry.example.com"])
    ]
    assert all(len(set(each)) == 1 and len(each) == 2 for each in names), names
    assert names[0] != names[1]


@needs_helm
def test_what_else_values_say_reaches_the_operator(tmp_path: Path) -> None:
    values = {
        "replicas": 2,
        "resources": {"requests": {"memory": "1Gi"}},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "podLabels": {"team": "platform"},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "priorityClassName": "high",
        "settings": {"TRUEKEEP_LOG_LEVEL": "DEBUG", "TRUEKEEP_WORKERS": 8},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    found = chart("--values", str(tmp_path / "values.yaml"))
    assert found["Deployment", SYSTEM, "truekeep-operator"]["spec"]["replicas"] == 2
    pod = operator(found)
    assert pod["containers"][0]["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}  # values are merged
    for name in ("nodeSelector", "tolerations", "topologySpreadConstraints", "priorityClassName"):
        assert pod[name] == values[name], name
    about = found["Deployment", SYSTEM, "truekeep-operator"]["spec"]["template"]["metadata"]
    ours = chart()["Deployment", SYSTEM, "truekeep-operator"]["spec"]
    assert about["annotations"] == values["podAnnotations"]
    assert about["labels"] == {"team": "platform", **ours["template"]["metadata"]["labels"]}
    assert ours["selector"]["matchLabels"].items() <= about["labels"].items()
    told = environment(found)
    assert (told["TRUEKEEP_LOG_LEVEL"], told["TRUEKEEP_WORKERS"]) == ("DEBUG", "8")


@needs_helm
def test_monitoring_is_the_kustomization_too() -> None:
    wanted = kustomized("monitoring")
    found = chart("--set", "monitoring.enabled=true")
    assert set(found) - set(chart()) == set(wanted)
    for key, each in wanted.items():
        assert found[key] == each, key


@needs_helm
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("replica=2", "replica"),
        ("replicas=-1", "replicas"),
        ("watchNamespaces={Team_A}", "watchNamespaces"),
        ("images.server=repo/server@sha256:12", "images"),
        ("images.pullPolicy=Sometimes", "pullPolicy"),
        ("settings.LOG_LEVEL=DEBUG", "LOG_LEVEL"),
        ("podLabels.app\\.kubernetes\\.io/name=mine", "invalid propertyName 'app.kubernetes.io/name'"),
    ],
)
def test_values_that_mean_nothing_are_refused(setting: str, words: str) -> None:
    done = helm("--set", setting)
    assert done.returncode != 0
    assert words in done.stderr
    assert "values don't meet the specifications of the schema" in done.stderr


@needs_helm
def test_the_chart_is_well_made() -> None:
    done = subprocess.run(
        [fetch_binary("helm"), "lint", "--strict", *KUBERNETES, CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
