"""People with names and rights of their own on the cluster: service accounts, their tokens, and a kubeconfig each."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.story.kube import Json, Kube, KubectlError


@dataclass
class Someone:
    """A person, and what she may do: nothing but what her roles in one namespace allow."""

    name: str  # as the cluster knows her
    namespace: str
    kubeconfig: Path
    kubectl: str

    def does(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints for her. KubectlError with its words where she may not."""
        command = [self.kubectl, "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def applies(self, document: Json) -> str:
        """Server-side apply of one object."""
        return self.does("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(document))

    def creates(self, document: Json) -> str:
        """`kubectl create` of one object."""
        return self.does("create", "-f", "-", stdin=yaml.safe_dump(document))

    def truekeep(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """The command line, with her kubeconfig. TimeoutExpired after so many seconds."""
        return subprocess.run(
            [sys.executable, "-m", "truekeep.cli", *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def hire(
    kube: Kube, folder: Path, namespace: str, name: str, roles: Sequence[str], secrets: Sequence[str] = ()
) -> Someone:
    """A new person with these ClusterRoles in the namespace, who may read these of its Secrets."""
    kube.kubectl("create", "serviceaccount", name, "-n", namespace)
    for role in roles:
        kube.kubectl(
            "create", "rolebinding", f"{name}-{role}", "-n", namespace, f"--clusterrole={role}",
            f"--serviceaccount={namespace}:{name}",
        )  # fmt: skip
    if secrets:
        named = [f"--resource-name={each}" for each in secrets]
        kube.kubectl("create", "role", f"{name}-secrets", "-n", namespace, "--verb=get", "--resource=secrets", *named)
        kube.kubectl(
            "create", "rolebinding", f"{name}-secrets", "-n", namespace, f"--role={name}-secrets",
            f"--serviceaccount={namespace}:{name}",
        )  # fmt: skip
    token = kube.kubectl("create", "token", name, "-n", namespace, "--duration=1h").strip()
    config = copy.deepcopy(yaml.safe_load(kube.kubectl("config", "view", "--raw", "--minify", "--flatten")))
    config["users"] = [{"name": name, "user": {"token": token}}]
    config["contexts"][0]["context"] = {**config["contexts"][0]["context"], "user": name, "namespace": namespace}
    path = folder / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return Someone(f"system:serviceaccount:{namespace}:{name}", namespace, path, kube.program)
