"""Workers that take keys from the queue, and what keeps the queue honest: a list of everything, now and then, so that
a watch that fell silent loses nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from truekeep.cluster.errors import ClusterError, Conflict, NameTaken, NotLeader, Refused, Terminating
from truekeep.cluster.views import SpecInvalidError
from truekeep.controller.queue import Cause, Key, WorkQueue
from truekeep.controller.reconcilers import Reconciler

RECONCILE_TIMEOUT_SECONDS = 90.0
RESYNC_SECONDS = 30.0  # what is not watched (budgets, autoscalers, routes, pods' metrics) is seen that often
LOOKS_A_SECOND = 10.0  # without a cause, at most: what thousands of objects cost at rest
logger = logging.getLogger(__name__)


class Meter(Protocol):
    """Hears how each reconcile went."""

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """result: success, conflict, terminating, refused, unavailable, not_leader, error."""

    def waited(self, kind: str, seconds: float) -> None:
        """How long after it was due an object was looked at."""


def about(key: Key) -> dict[str, str]:
    """What a log line says of a key."""
    return {"kind": key.kind, "namespace": key.namespace, "object": key.name}


@dataclass
class Loop:
    """Looks at keys as they fall due, while this process leads."""

    queue: WorkQueue
    reconcilers: Mapping[str, Reconciler]
    leading: asyncio.Event
    meter: Meter
    clock: Callable[[], float]
    timeout_seconds: float = RECONCILE_TIMEOUT_SECONDS
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self) -> None:
        """One worker, until `stopping` is set."""
        led = self.clock()
        while not self.stopping.is_set():
            if not self.leading.is_set():
                await self.leading.wait()
                led = self.clock()  # what was due before was not ours to look at
            key = await self.queue.get()
            if self.leading.is_set():
                self.meter.waited(key.kind, self.clock() - max(led, self.queue.was_due(key)))
                await self.look_at(key)
            else:
                self.queue.done(key)  # whoever takes the lead lists everything

    async def look_at(self, key: Key) -> None:
        """Reconcile one key. Nothing that goes wrong in it leaves here."""
        started = self.clock()
        result = "error"
        try:
            async with asyncio.timeout(self.timeout_seconds):
                again = await self.reconcilers[key.kind].reconcile(key)
            self.queue.done(key, again)
            result = "success"
        except NotLeader:
            self.queue.done(key)  # the new leader lists everything
            result = "not_leader"
        except Conflict as error:
            self.queue.failed(key)
            logger.debug("changed while it was looked at: %s", error, extra=about(key))
            result = "conflict"
        except Terminating:
            self.queue.failed(key)
            result = "terminating"
        except (Refused, NameTaken) as error:
            wait = self.queue.failed(key)
            logger.warning("refused, tried again in %.1f s: %s", wait, error, extra=about(key))
            result = "refused"
        except (ClusterError, SpecInvalidError, TimeoutError) as error:
            wait = self.queue.failed(key)
            logger.warning("tried again in %.1f s: %s", wait, error or type(error).__name__, extra=about(key))
            result = "unavailable"
        except asyncio.CancelledError:
            self.queue.failed(key)
            raise
        except Exception:
            wait = self.queue.failed(key)
            logger.exception("a reconcile crashed, tried again in %.1f s", wait, extra=about(key))
        finally:
            self.meter.reconciled(key.kind, result, self.clock() - started)


@dataclass
class Resync:
    """Lists everything at the start, when the lead is taken, and then periodically."""

    list_keys: Callable[[], Awaitable[list[Key]]]
    queue: WorkQueue
    leading: asyncio.Event
    clock: Callable[[], float]
    every_seconds: float = RESYNC_SECONDS
    last: float | None = None  # when everything was listed last, by the clock
    soon: asyncio.Event = field(default_factory=asyncio.Event)  # set it to list at once

    async def run(self) -> None:
        """For ever, one list after the other, and one at once where the lead was taken."""
        while True:
            await self.leading.wait()
            try:
                pause = await self.once() * random.uniform(0.8, 1.2)
            except ClusterError as error:
                logger.warning("the list of everything failed: %s", error)
                pause = 5.0
            except Exception:
                logger.exception("the list of everything crashed")
                pause = 5.0
            self.soon.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.soon.wait(), pause)

    async def once(self) -> float:
        """Look at everything that there is: at once where nobody did yet, and else by and by, so that it stands in
        nobody's way. In how many seconds to do so again."""
        keys = await self.list_keys()
        seconds = max(self.every_seconds, len(keys) / LOOKS_A_SECOND)
        first, self.last = self.last is None or self.soon.is_set(), self.clock()
        for number, key in enumerate(keys):
            self.queue.add(key, after=0.0 if first else seconds * number / len(keys), cause=Cause.ROUTINE)
        return seconds
