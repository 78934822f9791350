"""The cluster as kind makes it, where a Docker engine answers. Kept thin: create, load, delete."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster import binaries
from tests.cluster.binaries import Builder
from tests.cluster.commands import run, succeeds
from tests.cluster.containers import archived_names, full_name
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import CLUSTER, CONTEXT, KIND_CONFIG, NODE, Layout, Record, boot_id
from tests.cluster.onenode import remove_tree
from tests.cluster.progress import Progress, Step

ENGINE = "kind"


def docker_answers() -> bool:
    return succeeds(["docker", "info"], timeout=10)


class Kind:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._kubectl = Kubectl(layout)

    def healthy(self) -> bool:
        return Record.read(self._layout) is not None and not self._kubectl.unready()

    def up(self, tool: str) -> None:
        builder = Builder.here()
        missing = builder.missing(binaries.KIND_MODULES)
        create = Step("creating the kind cluster", 90)
        progress = Progress([*[module.step for module in missing], create])
        builder.build(missing, progress)
        layout = self._layout
        layout.bin.mkdir(parents=True, exist_ok=True)
        for module, name in ((binaries.KIND, "kind"), (binaries.KUBECTL, "kubectl")):
            shutil.copy2(builder.path(module, name), layout.bin / name)
        with progress.step():
            if CLUSTER in run([layout.bin / "kind", "get", "clusters"]).split():
                self._kind("delete", "cluster")  # one of ours by its name, and not healthy
            self._kind("create", "cluster", "--config", str(KIND_CONFIG), "--wait", "180s")
            Kubectl(layout)("config", "rename-context", f"kind-{CLUSTER}", CONTEXT)
            server, authority = server_and_authority(layout.kubeconfig)
            Record(ENGINE, server, authority, boot_id(), tool, {}).write(layout)

    def load(self, archives: Sequence[Path]) -> list[str]:
        names = [full_name(name) for archive in archives for name in archived_names(archive)]
        for archive in archives:
            run([self._layout.bin / "kind", "load", "image-archive", archive, "--name", CLUSTER])
        return names

    def image_names(self) -> set[str]:
        return set(run(["docker", "exec", NODE, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"]).split())

    def down(self) -> None:
        self._kind("delete", "cluster")
        remove_tree(self._layout.root)

    def describe(self) -> list[str]:
        waiting = self._kubectl.unready()
        return [f"not ready: {', '.join(waiting)}" if waiting else "node, CoreDNS and storage are ready"]

    def _kind(self, *arguments: str) -> None:
        argv: list[str | Path] = [self._layout.bin / "kind", *arguments, "--name", CLUSTER]
        run([*argv, "--kubeconfig", self._layout.kubeconfig])


def server_and_authority(kubeconfig: Path) -> tuple[str, str]:
    """The API server's URL and the sha256 of its authority's PEM, of the only cluster of a kubeconfig."""
    (cluster,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
    pem = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    return cluster["cluster"]["server"], hashlib.sha256(pem).hexdigest()
