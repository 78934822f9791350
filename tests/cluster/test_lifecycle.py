"""Up again after a crash, and down without a trace. It takes the machine's cluster down and makes a new one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster import cgroups, down, engine, environment, require_own_context, status, up
from tests.cluster.layout import Layout, state_directory
from tests.cluster.onenode import DAEMONS, OneNode, mounts_below
from tests.cluster.processes import Daemons

pytestmark = [pytest.mark.cluster, pytest.mark.full]

OUTSIDE = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods")


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def machine() -> dict[str, list[str]]:
    """What a cluster could leave behind: links, routes, rules, mounts, cgroups, settings, files elsewhere."""
    rules = [line for program in ("iptables-save", "ip6tables-save") for line in said(program).splitlines()]
    cgroup_names = said("find", "/sys/fs/cgroup", "-name", "*truekeep*", "-o", "-name", "kubepods*").splitlines()
    sysctls = ("net/ipv4/ip_forward", "fs/inotify/max_user_instances", "vm/overcommit_memory", "kernel/panic")
    return {
        "links": said("ip", "-brief", "link").splitlines(),
        "routes": said("ip", "route", "show", "table", "all").splitlines(),
        "rules": [line for line in rules if line.startswith("-A") or (line.startswith(":") and " - " in line)],
        "mounts": [line for line in said("mount").splitlines() if "truekeep-cluster" in line],
        "cgroups": cgroup_names,
        "sysctls": [(Path("/proc/sys") / name).read_text() for name in sysctls],
        "files": [path for path in OUTSIDE if Path(path).exists()],
    }


@pytest.fixture
def layout() -> Layout:
    found = Layout(state_directory())
    up()
    if engine() != "one-node":
        pytest.skip("kind looks after its own containers")
    require_own_context(environment()["KUBECONFIG"])
    return found


def test_a_second_up_changes_nothing(layout: Layout) -> None:
    before = Daemons(layout.processes, layout.logs).running()
    up()
    assert Daemons(layout.processes, layout.logs).running() == before


def test_a_daemon_that_died_is_started_again_and_the_others_stay(layout: Layout) -> None:
    daemons = Daemons(layout.processes, layout.logs)
    before = daemons.running()
    before["kube-scheduler"].signal(9)  # type: ignore[arg-type]
    up()
    after = daemons.running()
    assert {name for name in DAEMONS if after[name] != before[name]} == {"kube-scheduler"}


def test_after_everything_was_killed_it_comes_up_anew(layout: Layout) -> None:
    cgroups.kill()
    assert mounts_below(layout.root), "the crash was meant to leave mounts"
    assert not status()[0]
    up()
    assert status()[0]


def test_down_leaves_nothing_and_may_be_repeated(layout: Layout) -> None:
    down()
    clean = machine()
    assert OneNode(layout).remains() == []
    assert clean["mounts"] == clean["cgroups"] == []
    up()
    assert machine()["mounts"] != []
    down()
    assert machine() == clean
    down()
    up()
    assert status()[0]
