"""The gRPC port: taken, kept while clients are told to leave, and given back.

gRPC says GOAWAY, which makes a client look for another pod at once and loses no call, only when a server ends, and a
server that ends takes no newcomers: those that kube-proxy sends here until it has forgotten this pod would fail. So,
while draining, a second server takes over the port (SO_REUSEPORT), and then the first one ends."""

from __future__ import annotations

import asyncio
from typing import Any

from truekeep.server import grpc_service
from truekeep.server.app import Application
from truekeep.server.limits import Limits
from truekeep.server.logs import fields, log
from truekeep.server.sockets import free_listener

HANDOVER_SECONDS = 0.5  # both servers listen: newcomers are few when the first one's listener closes
GUEST_SECONDS = 1  # age of a connection to the second server


class GrpcListener:
    """The gRPC server of a process."""

    def __init__(self, application: Application, limits: Limits, max_age_seconds: float) -> None:
        self._application = application
        self._limits = limits
        self._server = grpc_service.build(application, limits, max_age_seconds)
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen; port 0: on any free one. OSError where somebody else listens there: the second server's option to
        share a port must not let two processes share one."""
        if port:
            free_listener(port).close()
        self.port = _bind(self._server, port)
        await self._server.start()

    async def drain(self) -> bool:
        """Everybody is told to leave, and whoever still comes is answered for `drain_linger_seconds`; calls under way
        have until `drain_seconds`."""
        limits, first = self._limits, self._server
        second = grpc_service.build(self._application, limits, GUEST_SECONDS)
        try:
            _bind(second, self.port)
        except RuntimeError as error:  # no SO_REUSEPORT here
            log.warning("gRPC clients are told to leave only at the end", extra=fields(reason=str(error)))
            await asyncio.sleep(limits.drain_linger_seconds)
        else:
            await second.start()
            self._server = second
            handover = min(HANDOVER_SECONDS, limits.drain_linger_seconds)
            await asyncio.sleep(handover)
            leave = first.stop(grace=max(limits.drain_seconds - handover, 0.1))
            await asyncio.gather(leave, asyncio.sleep(limits.drain_linger_seconds - handover))
        await self.stop(max(limits.drain_seconds - limits.drain_linger_seconds, 0.1))
        return True

    async def stop(self, seconds: float) -> None:
        """Take no new calls; those under way have so long."""
        await self._server.stop(grace=seconds)


def _bind(server: Any, port: int) -> int:
    try:
        bound: int = server.add_insecure_port(f"[::]:{port}")
    except RuntimeError:  # no IPv6 here
        bound = server.add_insecure_port(f"0.0.0.0:{port}")
    return bound
