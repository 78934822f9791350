"""Which object to look at next, and when.

Keys are kept once. A key that is added while it is worked on is worked on again afterwards; keys of one group (all
that belongs to one Model) are never worked on at the same time; a key that failed waits, twice as long each time.
The clock is injected, and everything but `get` is synchronous, so that tests need no real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass

FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 60.0
ECHO_SECONDS = 2.0


@dataclass(frozen=True, order=True)
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
        self._due: dict[Key, float] = {}
        self._working: dict[Key, tuple[float, float]] = {}  # since when, and when it was due
        self._busy: set[Hashable] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def ready(self) -> int:
        """How many keys are due now."""
        now = self._clock()
        return sum(1 for due in self._due.values() if due <= now)

    def add(self, key: Key, after: float = 0.0) -> None:
        """Look at it in so many seconds at the latest."""
        due = self._clock() + max(0.0, after)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._changed.set()

    def add_all(self, keys: Iterable[Key]) -> None:
        """Look at all of them now."""
        for key in keys:
            self.add(key)

    def pop(self) -> Key | None:
        """A key to work on now, the one that is due longest, or None. `done` or `failed` must follow."""
        now = self._clock()
        ready = ((due, key) for key, due in self._due.items() if due <= now and key.group not in self._busy)
        found = min(ready, default=None)
        if found is None:
            return None
        due, key = found
        del self._due[key]
        self._working[key] = (now, due)
        self._busy.add(key.group)
        return key

    async def get(self) -> Key:
        """A key to work on, once there is one."""
        while (key := self.pop()) is None:
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self.wait_seconds())
        return key

    def wait_seconds(self) -> float | None:
        """Seconds until a key is due, None where none is to come before something else happens."""
        waits = [due - self._clock() for key, due in self._due.items() if key.group not in self._busy]
        return max(0.0, min(waits)) if waits else None

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
        self._changed.set()

    def longest_work(self) -> float:
        """Seconds for which the slowest key has been worked on."""
        return max((self._clock() - since for since, _ in self._working.values()), default=0.0)

    def was_due(self, key: Key) -> float:
        """When a key that is worked on was due, by the clock."""
        return self._working[key][1]

    @property
    def retrying(self) -> int:
        """How many keys failed last."""
        return len(self._failures)
