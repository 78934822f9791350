"""Debian and Ubuntu packages that the machine lacks: only what is missing is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError

CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")

# command -> the package that brings it
NODE_COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
}
CNI_PACKAGE = "containernetworking-plugins"


def cni_directory() -> Path | None:
    for directory in CNI_DIRECTORIES:
        if all((directory / plugin).exists() for plugin in CNI_PLUGINS):
            return directory
    return None


def missing_for_node() -> list[str]:
    """The packages that a one-node cluster still needs here."""
    packages = missing(NODE_COMMANDS)
    if cni_directory() is None:
        packages.append(CNI_PACKAGE)
    return packages


def missing(commands: dict[str, str]) -> list[str]:
    """The packages of those commands that the machine lacks, each once."""
    return sorted({package for command, package in commands.items() if shutil.which(command) is None})


def install(packages: Iterable[str]) -> None:
    """Install with apt, without starting or asking anything.

    The distribution's own containerd service may start with its package; it does not matter, since the cluster's
    containerd has a root, a state and a socket of its own.
    """
    wanted = list(packages)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"this machine lacks {', '.join(wanted)} and has no apt-get: install them with its own package manager"
        )
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    patient = ["-o", "DPkg::Lock::Timeout=600"]
    run(["apt-get", *patient, "-qq", "update"], env=environment)
    run(
        ["apt-get", *patient, "-qq", "install", "--yes", "--no-install-recommends", *wanted],
        env=environment,
    )
