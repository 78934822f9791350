"""The gRPC port, and how its clients are sent away.

GOAWAY makes a client look for another pod at once. gRPC says it without harm only to a connection that reached its age:
a server that ends cancels calls that arrive in the same moment (measured: three calls in fourteen ends of a busy pod,
and clients do not try those again). So connections are young: whoever calls follows a switch within
`grpc_age_seconds`, and a server that drains ends when they have left."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from truekeep.server import grpc_service
from truekeep.server.app import Application
from truekeep.server.limits import Limits
from truekeep.server.sockets import HOST_ENV


class GrpcListener:
    """The gRPC server of a process."""

    def __init__(self, application: Application, limits: Limits, max_age_seconds: float) -> None:
        self._limits = limits
        self._server = grpc_service.build(application, limits, min(max_age_seconds, limits.grpc_age_seconds))
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen; port 0: on any free one. RuntimeError where somebody else listens there."""
        self.port = _bind(self._server, port)
        await self._server.start()

    async def drain(self) -> bool:
        """Whoever still comes is answered for `drain_linger_seconds`, while connections reach their age; calls under
        way have until `drain_seconds`."""
        limits = self._limits
        await asyncio.sleep(limits.drain_linger_seconds)
        await self.stop(max(limits.drain_seconds - limits.drain_linger_seconds, 0.1))
        return True

    async def stop(self, seconds: float) -> None:
        """Take no new calls; those under way have so long."""
        await self._server.stop(grace=seconds)


def _bind(server: Any, port: int) -> int:
    if host := os.environ.get(HOST_ENV):
        return int(server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    try:
        bound: int = server.add_insecure_port(f"[::]:{port}")
    except RuntimeError:  # no IPv6 here
        bound = server.add_insecure_port(f"0.0.0.0:{port}")
    return bound
