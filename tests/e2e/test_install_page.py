"""docs/install.md, followed to the letter: each section's commands on a control plane whose nodes are played.

Only `make` is stood in for, because it builds images; what it would write is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import manifests
from images.publish import write

from tests.cluster import binaries, fetch_binary
from tests.cluster.plane import Plane

pytestmark = pytest.mark.full
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
PUBLISHED = {each.variable: f"registry.example.com/ml/{each.name}@sha256:{'ab' * 32}" for each in manifests.INSTALLED}


def commands(text: str) -> list[str]:
    """The lines of its shell blocks."""
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]


class Reader:
    """Somebody who does what the page says, in a checkout."""

    def __init__(self, plane: Plane, checkout: Path) -> None:
        self.checkout = checkout
        for name in ("manifests", "crds"):
            (checkout / name).symlink_to(ROOT / name)
        programs = checkout / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(fetch_binary("helm"))
        (programs / "kubectl").symlink_to(plane.builder.path(binaries.KUBERNETES, "kubectl"))
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "PATH": path}
        self.plane = plane

    def run(self, command: str, code: int = 0) -> str:
        if command == "make render":
            manifests.render(self.checkout)
            return ""
        if command.startswith("make publish"):
            assert command == "make publish REGISTRY=registry.example.com/ml PULL_SECRET=mirror"
            write(PUBLISHED, "mirror", self.checkout)
            return ""
        done = subprocess.run(
            ["bash", "-c", command], env=self.environment, cwd=self.checkout, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def clean(self) -> None:
        for folder in ("namespaced/example", "default"):
            self.run(f"kubectl delete --ignore-not-found -k {ROOT}/manifests/{folder}")
        self.run("kubectl delete namespace --ignore-not-found team-a team-b team-c")


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    with Plane(crds=None, nodes=1) as started:
        yield started


@pytest.fixture
def reader(plane: Plane, tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(plane, tmp_path)
    yield somebody
    somebody.clean()


def test_the_page_has_commands() -> None:
    assert len(commands(PAGE)) >= 18
    assert {title for title, text in SECTIONS.items() if commands(text)} == {
        "With kubectl", "With Helm", "For some namespaces alone", "From a registry of one's own", "Upgrade, and back",
        "Remove",
    }  # fmt: skip


def test_preflight_says_before_and_after_what_is_there(reader: Reader) -> None:
    (command,) = commands(PAGE.partition("\n## ")[0])
    before = reader.run(command)
    assert "none of our kinds is there yet" in before
    assert "no operator is installed yet" in before
    assert "no default StorageClass" in before
    for line in commands(SECTIONS["With kubectl"])[:2]:
        reader.run(line)
    after = reader.run(command)
    assert "the kinds are those of this version" in after
    assert "truekeep-system/truekeep-operator is ready" in after
    reader.run("kubectl delete crd driftpolicies.truekeep.dev")
    assert "driftpolicies.truekeep.dev is not there" in reader.run(command)


@pytest.mark.parametrize("title", [title for title, text in SECTIONS.items() if commands(text) and title != "Remove"])
def test_a_section_works(reader: Reader, title: str) -> None:
    for line in commands(SECTIONS[title]):
        reader.run(line)
    deployments = reader.run("kubectl get deployments -A -l app.kubernetes.io/name=truekeep -o name")
    assert "deployment.apps/truekeep-operator" in deployments
    if title == "From a registry of one's own":
        image = "{.spec.template.spec.containers[0].image}"
        command = f"kubectl get deployment truekeep-operator -n truekeep-system -o jsonpath={image}"
        assert reader.run(command) == PUBLISHED["TRUEKEEP_OPERATOR_IMAGE"]
    for release in ("truekeep-system", "team-c"):
        reader.run(f"helm uninstall truekeep --namespace {release} --ignore-not-found")


def test_removing_works(reader: Reader) -> None:
    reader.run(commands(SECTIONS["With kubectl"])[0])
    for line in commands(SECTIONS["Remove"]):
        reader.run(line)
    assert "truekeep" not in reader.run("kubectl get crds,namespaces,clusterroles -o name")


def test_every_setting_that_the_operator_takes_is_on_the_page() -> None:
    source = (ROOT / "operator/truekeep/operator_main.py").read_text()
    source += (ROOT / "operator/truekeep/cluster/prometheus.py").read_text()
    assert set(re.findall(r'"(TRUEKEEP_[A-Z_]+)"', source)) == set(re.findall(r"`(TRUEKEEP_[A-Z_]+)`", PAGE))
