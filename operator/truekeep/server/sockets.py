"""Sockets that listen."""

from __future__ import annotations

import os
import socket

HOST_ENV = "TRUEKEEP_SERVER_HOST"  # one address to listen on; a pod listens on all of its own


def free_listener(port: int) -> socket.socket:
    """A socket that listens on this port alone, for IPv4 and IPv6 where there is IPv6, else for IPv4."""
    backlog = 2048
    if host := os.environ.get(HOST_ENV):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
        except OSError:  # compiled in, but switched off
            pass
    return socket.create_server(("0.0.0.0", port), backlog=backlog)
