"""Install and remove, each way, on a real API server: by kustomize, of one file, with Helm, for some namespaces; and
away again in any order. The control plane is one of its own, because everything goes away here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import pytest
import yaml
from images import manifests

from tests.cluster import fetch_binary
from tests.cluster.errors import ClusterError
from tests.cluster.plane import Plane
from tests.e2e.installation import MANIFESTS, OF_OURS, SYSTEM, Installation

pytestmark = pytest.mark.full
CHART = MANIFESTS / "helm" / "truekeep"
STATUS = "--subresource=status"
RIGHTS = (["list", "models.truekeep.dev"], ["create", "jobs.batch"], ["patch", "models.truekeep.dev", STATUS])
CHILDREN = "jobs,cronjobs,deployments,services,poddisruptionbudgets"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A control plane without anything of ours."""
    with Plane(crds=None) as plane:
        yield Installation(plane, tmp_path_factory.mktemp("install"))


@pytest.fixture
def empty(bare: Installation) -> Iterator[Installation]:
    """The same; and whatever a test left is gone after it."""
    yield bare
    for folder in ("namespaced/example", "default"):
        bare.plane.kubectl("delete", "--ignore-not-found", "-k", str(MANIFESTS / folder), timeout=120)
    bare.plane.kubectl("delete", "namespace", "--ignore-not-found", "team-a", "team-b", "team-c", timeout=120)
    bare.log.unlink(missing_ok=True)


def helm(on: Installation, *arguments: str) -> str:
    env = {**os.environ, "KUBECONFIG": str(on.plane.kubeconfig), "HELM_CACHE_HOME": str(on.folder)}
    command = [fetch_binary("helm"), *arguments, "--namespace", SYSTEM]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trains(on: Installation, namespace: str) -> bool:
    return bool(on.get("jobs", namespace))


def test_one_rendered_file_is_the_whole_installation(empty: Installation) -> None:
    whole, kinds = manifests.render()
    for file in (kinds, whole):
        empty.plane.kubectl("apply", "--server-side", "--filename", str(file))
    empty.established()
    said = empty.plane.kubectl("apply", "--server-side", "-k", str(MANIFESTS / "default"), "-o", "json")
    again = {(each["kind"], each["metadata"]["name"]): each["metadata"] for each in json.loads(said)["items"]}
    assert len(again) >= 18
    # The second apply, of the folder, changed nothing that the file had made.
    assert {about["generation"] for about in again.values() if "generation" in about} == {1}


def test_helm_installs_upgrades_and_leaves_the_kinds_behind(empty: Installation) -> None:
    empty.plane.kubectl("apply", "--server-side", "--filename", str(MANIFESTS / "operator" / "namespace.yaml"))
    helm(empty, "install", "truekeep", str(CHART))
    empty.established()
    assert len(empty.get("deployments", SYSTEM)) == 1
    empty.namespace("team-a")
    empty.model("team-a")
    helm(empty, "upgrade", "truekeep", str(CHART), "--set", "images.pullSecrets={mirror}", "--set", "replicas=2")
    (deployment,) = empty.get("deployments", SYSTEM)
    assert deployment["spec"]["replicas"] == 2
    assert empty.environment()["TRUEKEEP_IMAGE_PULL_SECRETS"] == "mirror"
    helm(empty, "uninstall", "truekeep")
    assert not empty.get("deployments", SYSTEM)
    assert len(empty.get("models", "team-a")) == 1


def test_an_operator_of_two_namespaces_works_in_these_with_no_right_anywhere_else(empty: Installation) -> None:
    empty.apply("crds")
    empty.established()
    for name in ("team-a", "team-b", "team-c"):
        empty.namespace(name)
    empty.apply("namespaced/example")
    for name in ("team-a", "team-b", "team-c"):
        empty.model(name)
    with empty.operator() as process:
        empty.until("both to train", lambda: trains(empty, "team-a") and trains(empty, "team-b"))
        assert process.poll() is None
    assert not empty.get("jobs", "team-c")
    assert not empty.get("trainingruns", "team-c")
    assert "orbidden" not in empty.log.read_text()
    for question in RIGHTS:
        assert empty.can(*question, "-n", "team-a")
        assert not empty.can(*question, "-n", "team-c")
        assert not empty.can(*question, "--all-namespaces")
    assert not empty.can("get", "nodes")
    assert not empty.can("get", "secrets", "-n", "team-a")
    bindings = json.loads(empty.plane.kubectl("get", "clusterrolebindings", "-o", "json"))["items"]
    subjects = [subject["name"] for each in bindings for subject in each.get("subjects") or []]
    assert "truekeep-operator" not in subjects


def test_the_same_with_the_chart(empty: Installation) -> None:
    empty.apply("crds")
    empty.established()
    empty.plane.kubectl("apply", "--server-side", "--filename", str(MANIFESTS / "operator" / "namespace.yaml"))
    for name in ("team-a", "team-c"):
        empty.namespace(name)
        empty.model(name)
    given = ["--set", "watchNamespaces={team-a}", "--set", "crds.install=false"]
    helm(empty, "install", "truekeep", str(CHART), *given)
    with empty.operator():
        empty.until("it to train", lambda: trains(empty, "team-a"))
    assert not empty.get("jobs", "team-c")
    assert "orbidden" not in empty.log.read_text()
    helm(empty, "uninstall", "truekeep")
    assert not empty.get("roles", "team-a")


def remove_operator(on: Installation) -> None:
    on.plane.kubectl("delete", "-k", str(MANIFESTS / "operator"), "--ignore-not-found", "--timeout=60s", timeout=70)


def remove_kinds(on: Installation) -> None:
    on.plane.kubectl("delete", "-k", str(MANIFESTS / "crds"), "--ignore-not-found", "--timeout=60s", timeout=70)


def remove_namespace(on: Installation) -> None:
    on.plane.kubectl("delete", "namespace", "team-a", "--timeout=60s", timeout=70)


PARTS: dict[str, Callable[[Installation], None]] = {
    "operator": remove_operator,
    "kinds": remove_kinds,
    "namespace": remove_namespace,
}


@contextmanager
def at_work(empty: Installation) -> Iterator[None]:
    """Installed, with the operator at work on a Model of the namespace team-a."""
    empty.apply("crds")
    empty.established()
    empty.apply("operator")
    empty.namespace("team-a")
    empty.model("team-a")
    with empty.operator():
        empty.until("it to train", lambda: trains(empty, "team-a"))
        yield


@pytest.mark.parametrize("order", list(permutations(PARTS)), ids="-".join)
def test_it_goes_in_any_order_and_leaves_nothing(empty: Installation, order: tuple[str, ...]) -> None:
    with at_work(empty):
        for plural in OF_OURS:
            for item in empty.get(plural, "team-a"):
                assert not item["metadata"].get("finalizers"), item["metadata"]
        for part in order:
            if part == "operator":
                break
            PARTS[part](empty)
            if part == "kinds" and "namespace" in order[1:]:
                empty.until("what the Models owned to go", lambda: not empty.get(CHILDREN, "team-a"))
    for part in order[order.index("operator") :]:
        PARTS[part](empty)
        if part == "kinds" and "namespace" in order[order.index("kinds") :]:
            empty.until("what the Models owned to go", lambda: not empty.get(CHILDREN, "team-a"))
    left = empty.plane.kubectl("get", "namespaces", "-o", "name").split()
    assert not {"namespace/team-a", f"namespace/{SYSTEM}"} & set(left)
    kinds = "crds,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    assert "truekeep" not in empty.plane.kubectl("get", kinds, "-o", "name")


def test_nothing_that_is_removed_first_can_hold_up_the_rest(empty: Installation) -> None:
    """Everything at once, as `kubectl delete -k` does it, with Models there and the operator at work."""
    with at_work(empty):
        empty.plane.kubectl("delete", "-k", str(MANIFESTS / "default"), "--timeout=90s", timeout=100)
    empty.until("what the Models owned to go", lambda: not empty.get(CHILDREN, "team-a"))
    with pytest.raises(ClusterError):
        empty.plane.kubectl("get", "models.truekeep.dev", "-A")


def test_the_example_names_what_there_is() -> None:
    """docs/install.md tells people to copy it."""
    folder = Path(MANIFESTS / "namespaced" / "example")
    overlay = yaml.safe_load((folder / "kustomization.yaml").read_text())
    literals = overlay["configMapGenerator"][0]["literals"]
    assert literals == [
        f"TRUEKEEP_WATCH_NAMESPACES={','.join(r for r in overlay['resources'] if not r.startswith('..'))}"
    ]
