"""What keeps the cluster from coming up is said in one line, before anything is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.cluster import cgroups, manager, network, onenode, packages
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout, Record, boot_id
from tests.cluster.onenode import OneNode


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A machine on which everything is well, each of the tests spoiling one thing."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(network, "owner", lambda: None)
    monkeypatch.setattr(onenode, "filesystem_of", lambda path: "ext4")
    monkeypatch.setattr(onenode, "LONGEST_ROOT", 1000)
    return Layout(tmp_path / "cluster")


def refused(layout: Layout) -> str:
    with pytest.raises(ClusterError) as caught:
        OneNode(layout).up("tool")
    assert not layout.root.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_not_root(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "the one-node cluster needs root: run as root, or start Docker" in refused(layout)


def test_another_cluster_on_the_machine(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "owner", lambda: "/srv/cluster")
    assert "this machine carries the cluster of /srv/cluster" in refused(layout)


def test_a_directory_too_deep_for_sockets(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onenode, "LONGEST_ROOT", 10)
    assert "is longer than 10 characters" in refused(layout)


def test_an_overlay_filesystem(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onenode, "filesystem_of", lambda path: "overlay")
    assert "set TRUEKEEP_CLUSTER_DIR to a directory on a disk" in refused(layout)


def test_a_full_disk(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(layout.root.parent)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "has 1.0 GiB free and a node wants 5: make room" in refused(layout)


def test_no_cgroups(layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("cgroup /nowhere/cpu cgroup rw,cpu,cpuset 0 0\n")
    monkeypatch.setattr(cgroups, "MOUNTS", mounts)
    assert "no cgroup controller for memory, pids" in refused(layout)


def test_no_package_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: None)
    with pytest.raises(ClusterError, match="lacks containerd, runc and has no apt-get"):
        packages.install(["containerd", "runc"])


def test_only_missing_packages_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: None if command in ("ctr", "containerd") else "/bin/x")
    assert packages.missing(packages.NODE_COMMANDS) == ["containerd"]


@pytest.mark.parametrize(
    ("recorded", "docker", "chosen"),
    [
        (None, True, "kind"),
        (None, False, "one-node"),
        ("one-node", True, "one-node"),
        ("kind", True, "kind"),
        ("kind", False, "one-node"),
    ],
)
def test_the_engine_stays_what_it_was_where_it_can(
    monkeypatch: pytest.MonkeyPatch, recorded: str | None, docker: bool, chosen: str
) -> None:
    monkeypatch.delenv("TRUEKEEP_ENGINE", raising=False)
    monkeypatch.setattr(manager.kind, "docker_answers", lambda: docker)
    record = Record(recorded, "", "", boot_id(), "", {}) if recorded else None
    assert manager._choose_engine(record) == chosen


def test_an_engine_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEKEEP_ENGINE", "minikube")
    with pytest.raises(ClusterError, match="TRUEKEEP_ENGINE is 'minikube'; it may be kind or one-node"):
        manager._choose_engine(None)
