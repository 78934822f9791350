"""A Lease, so that of several operators one writes.

A standby judges the Lease by the change that it saw, on its own monotonic clock, and never by the time that another
machine wrote into it. The leader stops writing as soon as it could not renew for the Lease's length less a margin,
counted from before its last renewal was sent: by then nobody else can have taken it. A leader that ends releases the
Lease, and one that was killed and came back under the same name (a container that was restarted in its pod) has it
still."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from truekeep.cluster import kinds
from truekeep.cluster.api import Api
from truekeep.cluster.errors import AlreadyExists, ClusterError, Conflict, NotLeader

Json = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds: how long a Lease lasts, how often the leader renews and a standby looks, and how much earlier than its
    end the leader stops writing."""

    duration: float = 15.0
    renew: float = 4.0
    look: float = 1.5
    margin: float = 3.0


class Elector:
    """Takes and keeps the Lease. `leading` is set while it is held; `taken` is called each time it was taken."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._where = (namespace, name)
        self._identity = identity
        self._timing = timing or Timing()
        self._clock = clock
        self._sleep = sleep
        self._taken = taken
        self._renewed: float | None = None  # when the last renewal that succeeded was sent
        self._seen: tuple[str, float] | None = None  # the Lease's version that was seen last, and when first
        self.leading = asyncio.Event()

    def holds(self) -> bool:
        """Whether this process may write now."""
        limit = self._timing.duration - self._timing.margin
        return self._renewed is not None and self._clock() - self._renewed < limit

    def must_hold(self) -> None:
        """NotLeader unless this process may write now."""
        if not self.holds():
            raise NotLeader("the Lease is not held")

    async def run(self) -> None:
        """Take the Lease when that is possible, and keep it; for ever."""
        while True:
            pause = self._timing.look
            try:
                await self.step()
                pause = self._timing.renew if self.holds() else self._timing.look
            except ClusterError as error:
                logger.warning("the Lease could not be kept or taken: %s", error)
            self._tell()
            await self._sleep(pause)

    async def step(self) -> None:
        """Look at the Lease once, and take or renew it where that is right."""
        before = self._clock()
        lease = await self._api.get(kinds.LEASE, *self._where)
        if lease is None:
            await self._write(before, self._api.create, self._manifest({}, {}, taken=True))
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = str(lease["metadata"].get("resourceVersion"))
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, before)
        lasts = float(spec.get("leaseDurationSeconds") or self._timing.duration)
        unchanged = before - self._seen[1]
        if holder == self._identity or not holder or unchanged > lasts:
            manifest = self._manifest(lease["metadata"], spec, taken=holder != self._identity)
            await self._write(before, self._api.replace, manifest)
        else:
            self._renewed = None

    async def release(self) -> None:
        """Give the Lease up, so that a standby, or this operator's next process, need not wait."""
        held = self.holds()
        self._renewed = None
        self._tell()
        if not held:
            return
        with suppress(ClusterError):
            lease = await self._api.get(kinds.LEASE, *self._where)
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.replace(kinds.LEASE, lease)

    async def _write(self, sent: float, call: Callable[..., Awaitable[Json]], manifest: Json) -> None:
        try:
            lease = await call(kinds.LEASE, manifest)
        except (Conflict, AlreadyExists):
            self._renewed = None  # another one was first
            return
        self._renewed = sent
        self._seen = (str(lease["metadata"].get("resourceVersion")), sent)

    def _manifest(self, metadata: Json, spec: Json, taken: bool) -> Json:
        namespace, name = self._where
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known = {"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": "Lease",
            "metadata": {"namespace": namespace, "name": name, **known},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._timing.duration),
                "acquireTime": moment if taken else spec.get("acquireTime", moment),
                "renewTime": moment,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if taken and spec else 0),
            },
        }

    def _tell(self) -> None:
        if self.holds() and not self.leading.is_set():
            logger.info("this operator leads: %s", self._identity)
            self.leading.set()
            self._taken()
        elif not self.holds() and self.leading.is_set():
            logger.warning("this operator does not lead any more: %s", self._identity)
            self.leading.clear()
