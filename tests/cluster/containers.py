"""The node's containerd: its configuration, and the images that it holds."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

NAMESPACE = "k8s.io"

_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE nothing may lower its oom_score_adj, and a sandbox that tries does not start.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{state}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"
"""


def write_config(layout: Layout, file: Path, *, pause: str, cni_bin: Path) -> None:
    file.write_text(
        _CONFIG.format(
            root=layout.containerd_root,
            state=layout.containerd_state,
            socket=layout.containerd_socket,
            pause=pause,
            cni_bin=cni_bin,
            cni_conf=layout.cni_config,
        )
    )


class Images:
    """What containerd holds for the kubelet."""

    def __init__(self, socket: Path) -> None:
        self._ctr = ["ctr", "--address", str(socket), "--namespace", NAMESPACE]

    def answers(self) -> bool:
        try:
            run([*self._ctr, "version"], timeout=5)
        except ClusterError:
            return False
        return True

    def names(self) -> set[str]:
        return set(run([*self._ctr, "images", "list", "--quiet"]).split())

    def load(self, archive: Path) -> list[str]:
        """Import an OCI or docker archive and pin its images; their names, as a pod spec may give them."""
        if not archive.is_file():
            raise ClusterError(f"{archive} is no file: give an OCI or docker archive of an image")
        names = archived_names(archive)
        run([*self._ctr, "images", "import", archive])
        for name in names:
            full = full_name(name)
            if full != name and name in self.names():  # the kubelet asks for full names only
                run([*self._ctr, "images", "tag", "--force", name, full])
                run([*self._ctr, "images", "remove", name])
            # Nobody can pull these again: image garbage collection must leave them alone.
            run([*self._ctr, "images", "label", full, "io.cri-containerd.pinned=pinned"])
        return [full_name(name) for name in names]


def archived_names(archive: Path) -> list[str]:
    """The images that an archive holds, as it names them: from docker's manifest or OCI's index."""
    documents: dict[str, Any] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name in ("manifest.json", "index.json") and (file := tar.extractfile(member)):
                    documents[member.name] = json.load(file)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ClusterError(f"{archive} is no archive of an image: {error}") from None
    names = [tag for image in documents.get("manifest.json", []) for tag in image.get("RepoTags") or []]
    if not names:
        for image in documents.get("index.json", {}).get("manifests", []):
            annotations = image.get("annotations", {})
            names.append(
                annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name", "")
            )
    if not names or not all(":" in name for name in names):
        raise ClusterError(
            f"{archive} names no image: write it as oci-archive:FILE:NAME:TAG or docker-archive:FILE:NAME:TAG"
        )
    return names


def full_name(name: str) -> str:
    """A reference as containerd and the kubelet know it: `app:1` -> `docker.io/library/app:1`."""
    domain, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    if "." in domain or ":" in domain or domain == "localhost":
        return name
    return f"docker.io/{name}"


def load_all(images: Images, archives: Sequence[Path]) -> list[str]:
    return [name for archive in archives for name in images.load(archive)]
