"""One cgroup of our own in each hierarchy: daemons and pods live below it, so that all of them can be found.

The kubelet is told to keep its pods there (`cgroupRoot`), and containerd is put there with all that it starts.
What is still running below it when the cluster goes down is ours, whoever lost its pid.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster.errors import ClusterError

NAME = "truekeep-cluster"
DAEMONS = "daemons"
NEEDED = {"cpu", "cpuset", "memory", "pids"}
MOUNTS = Path("/proc/self/mounts")


def hierarchies(mounts: str) -> dict[Path, set[str]]:
    """Mount point -> its controllers, from the text of /proc/self/mounts. Those of version 2 are not among its
    mount's options, so the set is empty; in a hybrid set-up it has none, and runc makes groups there all the same.
    """
    found: dict[Path, set[str]] = {}
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup":
            found[Path(point)] = set(options.split(","))
        elif kind == "cgroup2":
            found[Path(point)] = set()
    return found


def _hierarchies() -> dict[Path, set[str]]:
    found = hierarchies(MOUNTS.read_text())
    for point, controllers in found.items():
        with suppress(FileNotFoundError):  # the list of version 2; version 1 has it among the mount's options
            controllers.update((point / "cgroup.controllers").read_text().split())
    return found


def require() -> None:
    """Raise when the machine's cgroups cannot carry a node."""
    found = _hierarchies()
    lacking = NEEDED - set().union(*found.values())
    if lacking:
        raise ClusterError(
            f"no cgroup controller for {', '.join(sorted(lacking))}: a node needs cgroups mounted at /sys/fs/cgroup"
        )
    for point in found:
        if not os.access(point, os.W_OK):
            raise ClusterError(f"{point} is read-only: a node needs cgroups that it may write (a privileged container)")


def create() -> None:
    for point in _hierarchies():
        with suppress(FileNotFoundError, OSError):  # version 2: hand the controllers down
            controllers = (point / "cgroup.controllers").read_text().split()
            (point / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        group = point / NAME
        (group / DAEMONS).mkdir(parents=True, exist_ok=True)
        for level in (group, group / DAEMONS):
            for file in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty means that nothing may run there
                if (level / file).exists() and not (level / file).read_text().strip():
                    with suppress(OSError):
                        (level / file).write_text((level.parent / file).read_text())


def adopt(pid: int) -> None:
    """Put a daemon, and what it will start, below our cgroup."""
    for point in _tracking():
        (point / NAME / DAEMONS / "cgroup.procs").write_text(str(pid))


def members() -> set[int]:
    """The pids of everything below our cgroup."""
    pids: set[int] = set()
    for point in _tracking():
        for file in (point / NAME).rglob("cgroup.procs"):
            with suppress(OSError):  # a cgroup may go away while it is read
                pids.update(int(line) for line in file.read_text().split())
    return pids


def kill(seconds: float = 20.0) -> None:
    """Kill everything below our cgroup, until nothing is left there."""
    deadline = time.monotonic() + seconds
    while pids := members():
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(pids)} of the cluster do not die: look at their state in `ps`")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def remove() -> None:
    for point in _hierarchies():
        group = point / NAME
        if group.exists():
            for directory, _, _ in os.walk(group, topdown=False):
                _remove_one(Path(directory))


def remains() -> list[Path]:
    return [point / NAME for point in _hierarchies() if (point / NAME).exists()]


def _remove_one(directory: Path) -> None:
    for _ in range(50):  # the kernel takes a moment to forget a process that died
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
    raise ClusterError(f"the cgroup {directory} cannot be removed: something still runs there")


def _tracking() -> list[Path]:
    """One hierarchy is enough to know the processes by: that of `pids`, for every container joins it."""
    return [point for point, controllers in _hierarchies().items() if "pids" in controllers][:1]
