"""How much memory this process may use and does use, so that reading ends with words before the kernel ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from truekeep.sources.errors import OutOfMemory

SHARE = 0.6  # of the memory that was free at first: rows that are read; putting them together and fitting take the rest
GIB = 1 << 30

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup v2, v1


def limit() -> int:
    """Bytes: the container's limit, or the machine's memory where that is less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        try:
            most = min(most, int(Path(path).read_text()))
        except (OSError, ValueError):  # the other kind of cgroup, or no limit: "max"
            continue
    return most


def used() -> int:
    """Bytes that are this process's own: files that are mapped into it can be dropped at any time."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


class Guard:
    """Holds what is in use against the limit. One for all sources of a run."""

    def __init__(self, limit: int, used: Callable[[], int] = used) -> None:
        self._limit = limit
        self._used = used
        before = used()
        self._room = before + int((limit - before) * SHARE)

    def check(self, name: str, rows: int, done: int, of: int) -> None:
        """OutOfMemory where `rows` of the first `done` of its `of` files are as much as there is room for."""
        now = self._used()
        if now > self._room:
            raise OutOfMemory(
                f"{name} does not fit into memory: with {rows:,} rows of use in {done:,} of {of:,} files, "
                f"{now / GIB:.2f} of {self._limit / GIB:.2f} GiB are in use, and reading may bring it to "
                f"{self._room / GIB:.2f}; declare spec.data.sample, shorten spec.data.window, or raise "
                "resources.limits.memory"
            )
