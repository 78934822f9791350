"""Threads that work beside the event loop."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

NICENESS = 5  # a quarter of the CPU where answers would take all of it


def step_back() -> None:
    """Let the calling thread come after those that answer requests, where they share a CPU: an answer waits for
    microseconds then, and not for the scheduler's next turn. Only Linux knows priorities of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox that forbids it
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
