"""What was counted lately. The operator compares a candidate with the live revision over the same seconds, and keeps no
counters for that: each server remembers its own of the last hour."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

Counts = tuple[float, ...]

EVERY_SECONDS = 5.0
KEPT = 720  # an hour


class Recent:
    """Counters as they were every few seconds. `read` answers the present ones, always as many, which only grow."""

    def __init__(self, read: Callable[[], Counts], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._began = clock()
        self._past: deque[tuple[float, Counts]] = deque(maxlen=KEPT)

    def keep(self) -> None:
        """Remember the present counters."""
        self._past.append((self._clock(), self._read()))

    async def keep_for_ever(self) -> None:
        """Remember them every few seconds."""
        while True:
            self.keep()
            await asyncio.sleep(EVERY_SECONDS)

    def since(self, seconds: float) -> tuple[float, Counts]:
        """What was counted in the last so many seconds, and in how many it was: up to `EVERY_SECONDS` more than asked
        for, less where the server is younger or an hour is over."""
        now, present = self._clock(), self._read()
        moment, before = (self._began, ()) if len(self._past) < KEPT else self._past[0]
        for kept, counts in reversed(self._past):
            if kept <= now - seconds:
                moment, before = kept, counts
                break
        before = before or (0.0,) * len(present)
        return now - moment, tuple(late - early for late, early in zip(present, before, strict=True))
