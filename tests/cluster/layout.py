"""Names, addresses and places of the cluster: nothing else in the tool spells them out."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "truekeep"
CONTEXT = "truekeep"
NODE = "truekeep-control-plane"  # what kind calls the node of a cluster `truekeep`

NODE_IP = "10.87.0.1"
SERVICE_RANGE = "10.96.0.0/16"
POD_RANGE = "10.244.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
API_PORT = 6443
ETCD_PORT = 23790
ETCD_PEER_PORT = 23800

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent
KIND_CONFIG = REPOSITORY / "kind-config.yaml"


def cache_directory() -> Path:
    """What survives `down`: the binaries. `TRUEKEEP_CACHE` moves it."""
    return Path(os.environ.get("TRUEKEEP_CACHE") or Path.home() / ".cache" / "truekeep").absolute()


def state_directory() -> Path:
    """Everything that the cluster consists of. `TRUEKEEP_CLUSTER_DIR` moves it."""
    if configured := os.environ.get("TRUEKEEP_CLUSTER_DIR"):
        return Path(configured).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/truekeep-cluster")
    state_home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state_home) / "truekeep-cluster"  # only kind gets here: the one-node cluster needs root


@dataclass(frozen=True)
class Layout:
    """The files below one state directory."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def kubectl(self) -> Path:
        return self.bin / "kubectl"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def processes(self) -> Path:
        return self.root / "processes"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def containerd_root(self) -> Path:
        return self.root / "containerd"

    @property
    def containerd_state(self) -> Path:
        return self.root / "containerd-state"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def cni_config(self) -> Path:
        return self.config / "cni"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"


@dataclass(frozen=True)
class Record:
    """What the cluster's maker wrote down about it: how others recognise it as ours."""

    engine: str  # "kind" or "one-node"
    server: str  # the API server's URL
    ca_sha256: str  # of the certificate authority's PEM, as the kubeconfig holds it
    boot: str  # the boot in which it was made: after another one nothing of it runs
    tool: str  # fingerprint of the tool and its go.mod files
    sysctls: dict[str, str]  # the values that were there before

    def write(self, layout: Layout) -> None:
        layout.root.mkdir(parents=True, exist_ok=True)
        temporary = layout.record.with_suffix(".new")
        temporary.write_text(json.dumps(self.__dict__, indent=2) + "\n")
        temporary.replace(layout.record)

    @classmethod
    def read(cls, layout: Layout) -> Record | None:
        """None where no cluster was made, or its record is not whole."""
        try:
            return cls(**json.loads(layout.record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
