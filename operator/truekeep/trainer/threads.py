"""How many threads training uses: as many whole CPUs as the container may use, at least one.

Linear algebra gets one thread, always: its sums depend on how they are split, and the same data must give the same
model on any number of CPUs. Trees (OpenMP) give the same on any number, so they get them all.

Threads of GNU OpenMP that wait for each other spin for milliseconds, which on a node with other work keeps off the CPU
the very thread that is waited for: a fit of 0.9 s took 12 to 60 s beside one busy process on two cores. With a short
spin it takes 0.9 s alone, and 1 to 4 s there.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
SPIN = {"GOMP_SPINCOUNT": "1000"}
_LINEAR_ALGEBRA = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def count(environment: MutableMapping[str, str] = os.environ, cpu_max: Path = CPU_MAX) -> int:
    """OMP_NUM_THREADS where it is set, else the CPU limit of the cgroup, else the CPUs that there are."""
    told = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    if told.isdecimal() and int(told) > 0:
        return int(told)
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, _, period = cpu_max.read_text(encoding="ascii").strip().partition(" ")
        if quota != "max":
            cpus = min(cpus, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup of version 2
    return max(1, cpus)


def fix(environment: MutableMapping[str, str] = os.environ) -> int:
    """Tell the libraries, before they are imported. Returns the number of threads for trees."""
    threads = count(environment)
    environment["OMP_NUM_THREADS"] = str(threads)
    for name in _LINEAR_ALGEBRA:
        environment[name] = "1"
    for name, value in SPIN.items():
        environment.setdefault(name, value)
    return threads
