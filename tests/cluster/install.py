"""`python -m tests.cluster.install`: the operator of this checkout, with the images that were built last, into the
cluster that this tool made (and into no other).

It applies what a user applies, `manifests/default`, with the names of the images as the only difference: an overlay
under build/install sets them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.cluster import ClusterError, environment, require_own_context
from tests.cluster.commands import run

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "build" / "images.env"
OVERLAY = REPOSITORY / "build" / "install"
OWN = "TRUEKEEP_OPERATOR_IMAGE"
PODS = ("TRUEKEEP_TRAINER_IMAGE", "TRUEKEEP_SERVER_IMAGE", "TRUEKEEP_MONITOR_IMAGE")
CRDS = ("models.truekeep.dev", "trainingruns.truekeep.dev", "driftpolicies.truekeep.dev")


def images(path: Path = IMAGES) -> dict[str, str]:
    """The names of the images built last, by variable. ClusterError where one is missing."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    missing = [name for name in (OWN, *PODS) if not found.get(name)]
    if missing:
        raise ClusterError(f"{path} does not name {', '.join(missing)}; `make images` builds and names them")
    return found


def overlay(names: dict[str, str]) -> str:
    """The kustomization that puts these images in place of the released ones."""
    image, _, tag = names[OWN].rpartition(":")
    literals = "\n".join(f"      - {name}={names[name]}" for name in PODS)
    return f"""# Made by `python -m tests.cluster.install`.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../../manifests/operator
images:
  - name: truekeep/operator
    newName: {image}
    newTag: "{tag}"
configMapGenerator:
  - name: truekeep-images
    namespace: truekeep-system
    behavior: merge
    literals:
{literals}
"""


class Kubectl:
    """kubectl on the cluster that this tool made."""

    def __init__(self, variables: dict[str, str]) -> None:
        require_own_context(variables["KUBECONFIG"])
        self._environment = {**os.environ, **variables}

    def __call__(self, *arguments: str, timeout: int = 60) -> str:
        return run(["kubectl", *arguments], timeout=timeout, env=self._environment)

    def apply(self, folder: Path) -> None:
        self("apply", "--server-side", "--force-conflicts", "--field-manager=truekeep-install", "-k", str(folder))


def install(wait_seconds: int = 180) -> None:
    """The kinds first, until they are served; then the rest, until the operator is ready."""
    kubectl = Kubectl({**os.environ, **environment()})
    names = images()
    started = time.monotonic()
    kubectl.apply(REPOSITORY / "manifests" / "crds")
    kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in CRDS), timeout=70)
    OVERLAY.mkdir(parents=True, exist_ok=True)
    (OVERLAY / "kustomization.yaml").write_text(overlay(names))
    kubectl.apply(OVERLAY)
    rollout = ["rollout", "status", "deployment/truekeep-operator", "-n", "truekeep-system"]
    kubectl(*rollout, f"--timeout={wait_seconds}s", timeout=wait_seconds + 10)
    sys.stderr.write(f"[install] {names[OWN]} is ready in truekeep-system ({time.monotonic() - started:.0f} s)\n")


def uninstall() -> None:
    """The operator and the kinds, and with them everything that is of these kinds."""
    kubectl = Kubectl({**os.environ, **environment()})
    kubectl("delete", "--ignore-not-found", "-k", str(REPOSITORY / "manifests" / "default"), timeout=180)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.install", description=__doc__)
    parser.add_argument("--remove", action="store_true", help="take the operator and the kinds away instead")
    options = parser.parse_args(arguments)
    try:
        if options.remove:
            uninstall()
        else:
            install()
    except ClusterError as error:
        sys.stderr.write(f"install: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
