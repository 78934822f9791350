"""An installation on a control plane without a node: what is installed, and the operator as a process that has its
ServiceAccount's rights and its Deployment's settings, and nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.commands import wait_until
from tests.cluster.errors import ClusterError
from tests.cluster.plane import Plane
from tests.e2e.shop import small_model
from tests.unit.conftest import free_port

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
SYSTEM = "truekeep-system"
SECONDS = 180  # the operator starts in five; a busy machine takes its time
OF_OURS = ("models", "trainingruns", "driftpolicies", "modelapprovals")


class Installation:
    """What a test does with a control plane."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.log = folder / "operator.log"

    def apply(self, what: str) -> None:
        """As a person does: kubectl apply of a folder of manifests/."""
        self.plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(MANIFESTS / what))

    def established(self) -> None:
        """Return when the kinds are served. kubectl's own wait fails on one that has no status yet."""
        self.until("the kinds to be served", lambda: all(map(self._serves, OF_OURS)))

    def _serves(self, plural: str) -> bool:
        try:
            self.plane.kubectl("get", f"{plural}.truekeep.dev", "--all-namespaces")
        except ClusterError:
            return False
        return True

    def get(self, kind: str, namespace: str, *selector: str) -> list[Json]:
        """Objects; none where the kind is not there."""
        with suppress(ClusterError):
            text = self.plane.kubectl("get", kind, "-n", namespace, "-o", "yaml", *selector)
            found: list[Json] = yaml.safe_load(text)["items"]
            return found
        return []

    def until(self, what: str, true: Callable[[], object], seconds: float = SECONDS) -> None:
        wait_until(what, lambda: bool(true()), seconds=seconds, every=0.3)

    def namespace(self, name: str) -> None:
        about = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        self.plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": about}])

    def model(self, namespace: str, name: str = "payments") -> None:
        """A Model with a policy; its store is nowhere."""
        policy = {"modelRef": {"name": name}, "schedule": "0 0 1 1 *", "window": {"hours": 24}}
        about = {"name": name, "namespace": namespace}
        model = small_model(name, serving={"capture": None})
        model["metadata"] = about
        document = {"apiVersion": "truekeep.dev/v1alpha1", "kind": "DriftPolicy", "metadata": about, "spec": policy}
        self.plane.kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all([_bare(model), document]))

    def can(self, *question: str) -> bool:
        """Whether the operator may do this."""
        who = f"--as=system:serviceaccount:{SYSTEM}:truekeep-operator"
        try:
            return self.plane.kubectl("auth", "can-i", *question, who).strip() == "yes"
        except ClusterError:
            return False

    def environment(self) -> dict[str, str]:
        """What the Deployment tells the operator by values."""
        (deployment,) = self.get("deployments", SYSTEM)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        told: dict[str, str] = {}
        for source in container["envFrom"]:
            name = source["configMapRef"]["name"]
            text = self.plane.kubectl("get", "configmap", name, "-n", SYSTEM, "-o", "yaml")
            told |= yaml.safe_load(text)["data"]
        return told | {each["name"]: each["value"] for each in container["env"] if "value" in each}

    def credentials(self) -> Path:
        """A kubeconfig with the token of the operator's ServiceAccount."""
        token = self.plane.kubectl("create", "token", "truekeep-operator", "-n", SYSTEM).strip()
        config = yaml.safe_load(self.plane.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": token}
        file = self.folder / "operator.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file

    @contextmanager
    def operator(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """The operator, from its first pass on, with other `settings` than its Deployment's where they are given."""
        port = free_port()
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KUBERNETES_", "TRUEKEEP_"))},
            **self.environment(),
            "KUBECONFIG": str(self.credentials()),
            "PYTHONPATH": str(ROOT / "operator"),
            "POD_NAMESPACE": SYSTEM,
            "POD_NAME": "operator-0",
            "TRUEKEEP_PORT": str(port),
            **settings,
        }
        with self.log.open("ab") as sink:
            process = subprocess.Popen([sys.executable, "-m", "truekeep.operator_main"], env=env, stderr=sink)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _bare(value: Any) -> Any:
    """Without what is null."""
    if isinstance(value, dict):
        return {key: _bare(each) for key, each in value.items() if each is not None}
    return value
