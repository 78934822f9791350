"""Which object to look at next, and when.

Keys are kept once. A key that is added while it is worked on is worked on again afterwards; keys of one group (all
that belongs to one Model) are never worked on at the same time; a key that failed waits, twice as long each time.
What somebody asked for stands before what happened since, most of which our own writes caused: where hundreds of Models
change at once, each is begun before any is looked at again. What is looked at without any cause, because everything is
looked at now and then, stands behind both.
The clock is injected, and everything but `get` is synchronous, so that tests need no real time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 60.0
ECHO_SECONDS = 2.0


class Cause(IntEnum):
    """Why to look at an object."""

    WANTED = 0  # somebody made it, or changed what it is to be
    HAPPENED = 1  # something else happened to it or to what belongs to it
    ROUTINE = 2  # nothing did that is known of


# So much later than it is due a key counts as due where others are due, too: it waits for these, and not for ever.
YIELDS_SECONDS = {Cause.WANTED: 0.0, Cause.HAPPENED: 10.0, Cause.ROUTINE: 40.0}


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """One object to look at. `model`: the Model that it belongs to, or is."""

    kind: str
    namespace: str
    name: str
    model: str

    @property
    def group(self) -> Hashable:
        """What of it is never worked on at the same time."""
        return (self.namespace, self.model)


class WorkQueue:
    """Keys with the time at which each is due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[Key, tuple[float, Cause]] = {}  # when, and why
        # By cause: each entry that _due does not say (any more) is passed over.
        self._heaps: dict[Cause, list[tuple[float, Key]]] = {cause: [] for cause in Cause}
        self._parked: dict[Hashable, set[Key]] = {}  # due, but one of their group is being worked on
        self._working: dict[Key, tuple[float, float, Cause]] = {}  # since when, when it was due, and why
        self._busy: set[Hashable] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def ready(self) -> int:
        """How many keys are due now."""
        now = self._clock()
        return sum(1 for due, _ in self._due.values() if due <= now)

    def add(self, key: Key, after: float = 0.0, cause: Cause = Cause.HAPPENED) -> None:
        """Look at it in so many seconds at the latest."""
        now = self._clock()
        due = now + max(0.0, after)
        known = self._due.get(key)
        if known is not None:
            # A better cause makes a key hurry that waits for less; a lesser one makes none wait.
            hurries = cause < known[1] and due <= max(known[0], now)
            later = due + max(0.0, YIELDS_SECONDS[cause] - YIELDS_SECONDS[known[1]])
            if not hurries and later >= known[0]:
                return
        self._due[key] = (due, cause)
        heapq.heappush(self._heaps[cause], (due, key))
        self._changed.set()

    def add_all(self, keys: Iterable[Key], cause: Cause = Cause.HAPPENED) -> None:
        """Look at all of them now."""
        for key in keys:
            self.add(key, cause=cause)

    def pop(self) -> Key | None:
        """A key to work on now, the one that is due longest, or None. `done` or `failed` must follow."""
        now = self._clock()
        dues = {cause: due for cause in Cause if (due := self._first(cause)) is not None and due <= now}
        if not dues:
            return None
        cause = min(dues, key=lambda each: dues[each] + YIELDS_SECONDS[each])
        due, key = heapq.heappop(self._heaps[cause])
        del self._due[key]
        self._working[key] = (now, due, cause)
        self._busy.add(key.group)
        return key

    def _first(self, cause: Cause) -> float | None:
        """When the first key of a heap is due that could be worked on; it is on top then."""
        heap = self._heaps[cause]
        while heap:
            due, key = heap[0]
            if self._due.get(key) != (due, cause):
                heapq.heappop(heap)
            elif key.group in self._busy:
                heapq.heappop(heap)
                self._parked.setdefault(key.group, set()).add(key)
            else:
                return due
        return None

    async def get(self) -> Key:
        """A key to work on, once there is one."""
        while (key := self.pop()) is None:
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self.wait_seconds())
        return key

    def wait_seconds(self) -> float | None:
        """Seconds until a key is due, None where none is to come before something else happens."""
        dues = [due for cause in Cause if (due := self._first(cause)) is not None]
        return max(0.0, min(dues) - self._clock()) if dues else None

    def done(self, key: Key, again_after: float | None = None) -> None:
        """It was looked at; look at it again in so many seconds."""
        self._failures.pop(key, None)
        self._finish(key)
        if again_after is not None:
            self.add(key, again_after)

    def failed(self, key: Key) -> float:
        """Looking at it failed; it waits, the longer the more often it failed in a row. Answers how long."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        wait = float(min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(count, 30)))
        self._finish(key)
        if self._due.pop(key, None) is not None:
            # Something happened to it meanwhile. That may be the remedy, or its own failure's echo: it must not spin.
            wait = min(wait, ECHO_SECONDS)
        self.add(key, wait)
        return wait

    def _finish(self, key: Key) -> None:
        del self._working[key]
        self._busy.discard(key.group)
        for parked in self._parked.pop(key.group, ()):
            if (known := self._due.get(parked)) is not None:
                heapq.heappush(self._heaps[known[1]], (known[0], parked))
        self._changed.set()

    def longest_work(self) -> float:
        """Seconds for which the slowest key has been worked on."""
        return max((self._clock() - since for since, _, _ in self._working.values()), default=0.0)

    def was_due(self, key: Key) -> float:
        """When a key that is worked on was due, by the clock."""
        return self._working[key][1]

    def others_wait(self, key: Key) -> bool:
        """Whether somebody asked for something of a key that is worked on, and of another one that is due since."""
        if self._working[key][2] != Cause.WANTED:
            return False
        due = self._first(Cause.WANTED)
        return due is not None and due <= self._clock()

    @property
    def retrying(self) -> int:
        """How many keys failed last."""
        return len(self._failures)
